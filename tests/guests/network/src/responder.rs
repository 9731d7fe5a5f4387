//! Answers to ARP requests and pings (RFC 792).

use oxen_netfront::Mac;
use oxen_netif::headers::sum;

use crate::frames::{ARP, HEADER, IPV4, arp, put};

const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;

/// The answer to a frame, if it asks something of this address, and how long it is.
pub fn answer(frame: &[u8], own: Mac, address: [u8; 4], reply: &mut [u8]) -> Option<usize> {
    let kind: [u8; 2] = frame.get(12..HEADER)?.try_into().ok()?;
    match kind {
        ARP => answer_arp(frame, own, address, reply),
        IPV4 => answer_ping(frame, own, address, reply),
        _ => None,
    }
}

fn answer_arp(frame: &[u8], own: Mac, address: [u8; 4], reply: &mut [u8]) -> Option<usize> {
    let message = frame.get(HEADER..HEADER + 28)?;
    let asks = message[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && message[24..28] == address;
    let other = Mac(message[8..14].try_into().ok()?);
    if !asks || other == own {
        return None;
    }
    let answer = arp(2, (own, address), (other, message[14..18].try_into().ok()?));
    put(reply, 0, &answer);
    Some(answer.len())
}

fn answer_ping(frame: &[u8], own: Mac, address: [u8; 4], reply: &mut [u8]) -> Option<usize> {
    const FRAGMENT: u8 = 0x3F;
    let head = frame.get(HEADER..HEADER + 20)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let whole = head[6] & FRAGMENT == 0 && head[7] == 0;
    if frame[..6] != own.0 || head[0] != 0x45 || !whole || head[9] != ICMP || head[16..] != address
    {
        return None;
    }
    let message = frame.get(HEADER + 20..HEADER + length)?;
    if message.len() < 8 || message[..2] != [ECHO_REQUEST, 0] {
        return None;
    }
    let size = HEADER + length;
    put(reply, 0, &frame[..size]);
    put(reply, 0, &frame[6..12]);
    put(reply, 6, &own.0);
    // The header's sum is the same with the addresses the other way round.
    put(reply, HEADER + 12, &head[16..]);
    put(reply, HEADER + 16, &head[12..16]);
    let icmp = HEADER + 20;
    put(reply, icmp, &[0, 0, 0, 0]);
    let checksum = !sum(&reply[icmp..size]);
    put(reply, icmp + 2, &checksum.to_be_bytes());
    Some(size)
}
