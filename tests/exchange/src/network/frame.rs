//! Messages in packets: Ethernet, IPv4 (RFC 791), UDP (RFC 768) and TCP (RFC 9293).

use oxen_netif::headers::{complete, sum};

use super::{LONGEST, MOST, Message, Protocol, SEGMENT, Wrong};

/// An Ethernet address.
pub type Mac = [u8; 6];

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;
/// Bytes of the longest headers.
pub const HEADERS: usize = ETHERNET + IPV4 + TCP;
/// First byte of the TCP or UDP header.
pub const TRANSPORT: usize = ETHERNET + IPV4;

/// Addresses of nobody (RFC 5737): of who asks, and of who answers.
const ASKING: [u8; 4] = [192, 0, 2, 1];
const ANSWERING: [u8; 4] = [192, 0, 2, 2];
/// Port of who asks; the other one says which message it is.
const ASKING_PORT: u16 = 30_000;
const FIRST_PORT: u16 = 40_000;

/// Place of the checksum in the header of a protocol.
pub const fn checksum_place(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => 6,
        Protocol::Tcp => 16,
    }
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 17,
        Protocol::Tcp => 6,
    }
}

const fn header(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => UDP,
        Protocol::Tcp => TCP,
    }
}

/// Bytes of a message that go in one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The message.
    pub message: Message,
    from: usize,
    length: usize,
}

impl Part {
    /// It is to be cut into packets.
    pub fn is_large(&self) -> bool {
        self.message.is_large() && self.length > SEGMENT
    }
}

/// The packets of a message; `whole`: what is too long for one is left in one piece, for somebody else to cut.
pub fn parts(message: Message, whole: bool) -> impl Iterator<Item = Part> {
    let most = if message.is_large() && !whole {
        SEGMENT
    } else {
        LONGEST
    };
    let length = message.length();
    (0..length).step_by(most).map(move |from| Part {
        message,
        from,
        length: most.min(length - from),
    })
}

/// Makes a frame of a part; returns its length. `blank`: the checksum's field has the pseudo header's sum only.
pub fn put(
    frame: &mut [u8; super::FRAME],
    (from, to): (Mac, Mac),
    part: Part,
    blank: bool,
) -> usize {
    let Part {
        message,
        from: place,
        length,
    } = part;
    let protocol = message.protocol();
    let payload = TRANSPORT + header(protocol);
    let frame = &mut frame[..payload + length];
    frame[..payload].fill(0);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[8, 0]);
    message.stream().fill(place as u64, &mut frame[payload..]);

    let ports = ports(message);
    let transport = &mut frame[TRANSPORT..];
    transport[..2].copy_from_slice(&ports.0.to_be_bytes());
    transport[2..4].copy_from_slice(&ports.1.to_be_bytes());
    let bytes = (header(protocol) + length) as u16;
    match protocol {
        Protocol::Udp => transport[4..6].copy_from_slice(&bytes.to_be_bytes()),
        Protocol::Tcp => {
            transport[4..8].copy_from_slice(&(place as u32).to_be_bytes());
            // Five words of header, an acknowledgement, and the largest window.
            transport[12..16].copy_from_slice(&[0x50, 0x10, 0xFF, 0xFF]);
        }
    }
    let addresses = addresses(message);
    let pseudo = pseudo(addresses, protocol, bytes);
    transport[checksum_place(protocol)..][..2].copy_from_slice(&pseudo.to_be_bytes());
    let whole = frame.len();
    put_ipv4(&mut frame[ETHERNET..TRANSPORT], addresses, protocol, whole);
    if !blank {
        complete(frame, TRANSPORT, checksum_place(protocol));
    }
    whole
}

fn put_ipv4(header: &mut [u8], (from, to): ([u8; 4], [u8; 4]), protocol: Protocol, frame: usize) {
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((frame - ETHERNET) as u16).to_be_bytes());
    header[8] = 64;
    header[9] = number(protocol);
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to);
    let checksum = !sum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn ports(message: Message) -> (u16, u16) {
    let own = FIRST_PORT + message.number;
    if message.answer {
        (own, ASKING_PORT)
    } else {
        (ASKING_PORT, own)
    }
}

const fn addresses(message: Message) -> ([u8; 4], [u8; 4]) {
    if message.answer {
        (ANSWERING, ASKING)
    } else {
        (ASKING, ANSWERING)
    }
}

/// The pseudo header's sum.
fn pseudo((from, to): ([u8; 4], [u8; 4]), protocol: Protocol, bytes: u16) -> u16 {
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&from);
    pseudo[4..8].copy_from_slice(&to);
    pseudo[9] = number(protocol);
    pseudo[10..].copy_from_slice(&bytes.to_be_bytes());
    sum(&pseudo)
}

/// A part of a message as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) message: Message,
    pub(super) from: usize,
    pub(super) payload: &'a [u8],
    pub(super) sender: Mac,
}

/// What a frame has of a message; `None` if it is not the test's. `blank`: its checksum is not complete.
pub(super) fn parse(frame: &[u8], blank: bool) -> Result<Option<Segment<'_>>, Wrong> {
    let Some((message, packet)) = identify(frame) else {
        return Ok(None);
    };
    let wrong = |what| Err(Wrong::Header(message, what));
    let protocol = message.protocol();
    let (ip, transport) = packet.split_at(IPV4);
    if ip[9] != number(protocol) {
        return wrong("its protocol");
    }
    if sum(ip) != 0xFFFF {
        return wrong("the checksum of its IPv4 header");
    }
    let size = header(protocol);
    let Some(payload) = transport.get(size..) else {
        return wrong("its length");
    };
    let bytes = transport.len() as u16;
    if protocol == Protocol::Udp && half(transport, 4) != bytes {
        return wrong("the length of its UDP header");
    }
    if protocol == Protocol::Tcp && transport[12] >> 4 != 5 {
        return wrong("the length of its TCP header");
    }
    let pseudo = pseudo(addresses(message), protocol, bytes);
    let total = u32::from(sum(transport)) + u32::from(pseudo);
    if !blank && (total & 0xFFFF) + (total >> 16) != 0xFFFF {
        return wrong("its checksum");
    }
    let from = match protocol {
        Protocol::Udp => 0,
        Protocol::Tcp => usize::from(half(transport, 4)) << 16 | usize::from(half(transport, 6)),
    };
    let mut sender = [0; 6];
    sender.copy_from_slice(&frame[6..12]);
    Ok(Some(Segment {
        message,
        from,
        payload,
        sender,
    }))
}

/// The message that a frame belongs to, and its packet without what fills short frames up.
fn identify(frame: &[u8]) -> Option<(Message, &[u8])> {
    let packet = frame.get(ETHERNET..)?;
    if frame[12..14] != [8, 0] || *packet.first()? != 0x45 {
        return None;
    }
    let packet = packet.get(..usize::from(half(packet.get(..IPV4)?, 2)))?;
    let ends = packet.get(12..20)?;
    let answer = match (&ends[..4], &ends[4..]) {
        (from, to) if from == ASKING && to == ANSWERING => false,
        (from, to) if from == ANSWERING && to == ASKING => true,
        _ => return None,
    };
    let port = half(packet.get(IPV4..IPV4 + 4)?, if answer { 0 } else { 2 });
    let number = port
        .checked_sub(FIRST_PORT)
        .filter(|number| *number < MOST)?;
    Some((Message { number, answer }, packet))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
