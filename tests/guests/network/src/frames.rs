//! Frames as bytes: Ethernet, ARP (RFC 826), IPv4.

use oxen_netfront::Mac;

pub const ARP: [u8; 2] = [8, 6];
pub const IPV4: [u8; 2] = [8, 0];
/// Shortest frame on a wire, without its checksum.
pub const SMALL: usize = 60;
/// Bytes of an Ethernet header.
pub const HEADER: usize = 14;
const BROADCAST: Mac = Mac([0xFF; 6]);

/// Four numbers with dots between them.
pub fn parse_address(text: &str) -> Option<[u8; 4]> {
    let mut words = text.split('.');
    let mut address = [0; 4];
    for byte in &mut address {
        *byte = words.next()?.parse().ok()?;
    }
    words.next().is_none().then_some(address)
}

/// Sets the bytes from `at` on.
pub fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An Ethernet header.
pub fn header(frame: &mut [u8], to: Mac, from: Mac, kind: [u8; 2]) {
    put(frame, 0, &to.0);
    put(frame, 6, &from.0);
    put(frame, 12, &kind);
}

/// An ARP message with its Ethernet header.
pub fn arp(operation: u8, (from, own): (Mac, [u8; 4]), (to, other): (Mac, [u8; 4])) -> [u8; SMALL] {
    let mut frame = [0; SMALL];
    header(&mut frame, to, from, ARP);
    // Ethernet, IPv4, their addresses' lengths, the operation.
    put(&mut frame, HEADER, &[0, 1, 8, 0, 6, 4, 0, operation]);
    put(&mut frame, HEADER + 8, &from.0);
    put(&mut frame, HEADER + 14, &own);
    put(&mut frame, HEADER + 18, &to.0);
    put(&mut frame, HEADER + 24, &other);
    frame
}

/// Tells everybody who has an address.
pub fn announcement(own: Mac, address: [u8; 4]) -> [u8; SMALL] {
    arp(1, (own, address), (BROADCAST, address))
}

/// A frame to everybody of a kind that nobody knows (IEEE 802, for local experiments).
pub fn plain(own: Mac) -> [u8; SMALL] {
    let mut frame = [0; SMALL];
    header(&mut frame, BROADCAST, own, [0x88, 0xB5]);
    frame
}

/// An IPv4 packet of a protocol, its transport header all zeroes, to nobody.
pub fn packet<const N: usize>(own: Mac, protocol: u8) -> [u8; N] {
    let mut frame = [0; N];
    header(&mut frame, Mac([2, 0, 0, 0, 0, 0xEE]), own, IPV4);
    let length = (N - HEADER) as u16;
    put(&mut frame, HEADER, &[0x45, 0]);
    put(&mut frame, HEADER + 2, &length.to_be_bytes());
    put(&mut frame, HEADER + 8, &[64, protocol]);
    put(&mut frame, HEADER + 12, &[192, 0, 2, 1, 192, 0, 2, 2]);
    frame
}
