//! Where a packet has its checksum (RFC 768, 791, 8200, 9293, IEEE 802.1Q), and how it is completed.

use crate::ETHERNET_HEADER;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Place of the checksum in TCP's header.
const TCP_CHECKSUM: u16 = 16;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
/// Tags of virtual networks, of which there may be two.
const TAGS: [u16; 2] = [0x8100, 0x88A8];
/// First bytes of a packet that hold all headers that are looked at, whatever a sane sender does.
pub const HEAD: usize = 256;

/// A packet's TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// First byte of the header, from which on the checksum counts.
    pub start: u16,
    /// The checksum's place in it.
    pub checksum: u16,
    /// First byte of what follows the header.
    pub payload: u16,
}

impl Transport {
    /// Whether it is TCP's, rather than UDP's.
    pub const fn is_tcp(&self) -> bool {
        self.checksum == TCP_CHECKSUM
    }
}

/// Finds the TCP or UDP header in a packet's first bytes; `None` if it has none, or only a part of one, or it is itself only a part.
pub fn transport(head: &[u8]) -> Option<Transport> {
    let (kind, at) = network(head)?;
    let (protocol, start) = match kind {
        IPV4 => ipv4(head, at)?,
        IPV6 => ipv6(head, at)?,
        _ => return None,
    };
    let (checksum, length) = match protocol {
        TCP => (
            TCP_CHECKSUM.into(),
            usize::from(head.get(start + 12)? >> 4) * 4,
        ),
        UDP => (6, 8),
        _ => return None,
    };
    let payload = start + length;
    // A TCP header has twenty bytes at least.
    if length <= checksum + 1 || payload > head.len() {
        return None;
    }
    Some(Transport {
        start: u16::try_from(start).ok()?,
        checksum: checksum as u16,
        payload: u16::try_from(payload).ok()?,
    })
}

/// Whether a packet is one of IPv6.
pub fn is_ipv6(head: &[u8]) -> bool {
    network(head).is_some_and(|(kind, _)| kind == IPV6)
}

/// What is behind the Ethernet header and its tags, and where it begins.
fn network(head: &[u8]) -> Option<(u16, usize)> {
    let mut kind = half(head, ETHERNET_HEADER - 2)?;
    let mut at = ETHERNET_HEADER;
    for _ in 0..2 {
        if TAGS.contains(&kind) {
            kind = half(head, at + 2)?;
            at += 4;
        }
    }
    Some((kind, at))
}

fn half(head: &[u8], at: usize) -> Option<u16> {
    let bytes = head.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn ipv4(head: &[u8], at: usize) -> Option<(u8, usize)> {
    const FRAGMENT: u16 = 0x3FFF;
    let first = *head.get(at)?;
    let length = usize::from(first & 0xF) * 4;
    let whole = half(head, at + 6)? & FRAGMENT == 0;
    (first >> 4 == 4 && length >= 20 && whole).then_some(())?;
    Some((*head.get(at + 9)?, at + length))
}

fn ipv6(head: &[u8], at: usize) -> Option<(u8, usize)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    const AUTHENTICATION: u8 = 51;
    (*head.get(at)? >> 4 == 6).then_some(())?;
    let mut next = *head.get(at + 6)?;
    let mut at = at + 40;
    // Each header has eight bytes at least, so this ends with the bytes.
    loop {
        let unit = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => 8,
            AUTHENTICATION => 4,
            other => return Some((other, at)),
        };
        next = *head.get(at)?;
        let more = usize::from(*head.get(at + 1)?);
        at += 8 + more * unit;
    }
}

/// Completes a checksum whose field has the pseudo header's sum: the field is `checksum` bytes from `start`, and all from there on
/// counts. False if the packet ends before.
pub fn complete(packet: &mut [u8], start: usize, checksum: usize) -> bool {
    let Some(counted) = packet.get(start..) else {
        return false;
    };
    if checksum
        .checked_add(2)
        .is_none_or(|end| end > counted.len())
    {
        return false;
    }
    // In UDP 0 means that there is none; the other zero means the same sum.
    let sum = match !sum(counted) {
        0 if checksum == 6 => 0xFFFF,
        sum => sum,
    };
    packet[start + checksum..][..2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The sum of RFC 1071.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0_u64;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(*last) << 8;
    }
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    total as u16
}
