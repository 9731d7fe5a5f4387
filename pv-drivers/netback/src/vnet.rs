//! What goes before each packet on a TAP interface with `IFF_VNET_HDR` (`struct virtio_net_hdr`, `linux/virtio_net.h`).

use oxen_netif::extra::{Gso, GsoKind};

/// Bytes of a header.
pub const HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_*`.
const NO_GSO: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;

/// What is known of a packet's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Nothing.
    #[default]
    Unknown,
    /// The content is what it was.
    Valid,
    /// It is to be completed: from byte `start` on, in the field that is `place` bytes from there.
    Blank {
        /// First byte that counts.
        start: u16,
        /// Place of the field.
        place: u16,
    },
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// The checksum.
    pub checksum: Checksum,
    /// How the packet is to be cut.
    pub gso: Option<Gso>,
    /// Bytes of all headers of a packet that is to be cut: a hint.
    pub headers: u16,
}

/// A header says something that was not agreed about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

impl Header {
    /// As it is read and written.
    pub fn encode(&self) -> [u8; HEADER] {
        let (flags, start, place) = match self.checksum {
            Checksum::Unknown => (0, 0, 0),
            Checksum::Valid => (DATA_VALID, 0, 0),
            Checksum::Blank { start, place } => (NEEDS_CHECKSUM, start, place),
        };
        let (kind, size) = match self.gso {
            None => (NO_GSO, 0),
            Some(gso) => match gso.kind {
                GsoKind::Tcp4 => (TCP4, gso.size),
                GsoKind::Tcp6 => (TCP6, gso.size),
            },
        };
        let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (nth, field) in [self.headers, size, start, place].into_iter().enumerate() {
            bytes[2 + 2 * nth..][..2].copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    /// From what was read.
    ///
    /// # Errors
    /// It is a kind of packet that was not asked for.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, Unexpected> {
        let field = |nth: usize| u16::from_ne_bytes([bytes[2 + 2 * nth], bytes[3 + 2 * nth]]);
        let kind = match bytes[1] {
            NO_GSO => None,
            TCP4 => Some(GsoKind::Tcp4),
            TCP6 => Some(GsoKind::Tcp6),
            _ => return Err(Unexpected),
        };
        let gso = match kind {
            Some(_) if field(1) == 0 => return Err(Unexpected),
            kind => kind.map(|kind| Gso {
                kind,
                size: field(1),
            }),
        };
        let checksum = if bytes[0] & NEEDS_CHECKSUM != 0 {
            Checksum::Blank {
                start: field(2),
                place: field(3),
            }
        } else if bytes[0] & DATA_VALID != 0 {
            Checksum::Valid
        } else {
            Checksum::Unknown
        };
        Ok(Self {
            checksum,
            gso,
            headers: field(0),
        })
    }
}
