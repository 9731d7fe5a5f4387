//! Slots that say something about a packet (`struct netif_extra_info`): eight bytes, on either ring. They come behind a packet's first slot
//! and before its other parts.

/// Which large packets a peer segments itself (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP in IPv4.
    Tcp4,
    /// TCP in IPv6.
    Tcp6,
}

/// A packet is to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Payload bytes of a segment; not 0.
    pub size: u16,
}

/// What an extra slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Cut the packet into segments.
    Gso(Gso),
    /// The guest wants multicast frames to this address.
    MulticastAdd([u8; 6]),
    /// It does not want them any more.
    MulticastRemove([u8; 6]),
    /// The packet's hash, which nobody here needs.
    Hash,
    /// Room that is left before the packet, which nobody here asked for.
    Headroom,
}

/// Kinds of extra slots that there are (`XEN_NETIF_EXTRA_TYPE_MAX` less one).
pub const KINDS: usize = 5;

/// What comes next on a ring: the same on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A packet's first slot.
    First,
    /// An extra slot.
    Extra {
        /// After the last one another part follows.
        parts: bool,
    },
    /// Another part.
    Part,
}

impl Next {
    /// Behind a slot that no extra slot follows.
    pub const fn after(parts: bool) -> Self {
        if parts { Self::Part } else { Self::First }
    }

    /// Behind an extra slot.
    pub const fn after_extra(more: bool, parts: bool) -> Self {
        if more {
            Self::Extra { parts }
        } else {
            Self::after(parts)
        }
    }
}

const GSO: u8 = 1;
const MULTICAST_ADD: u8 = 2;
const MULTICAST_REMOVE: u8 = 3;
const HASH: u8 = 4;
const HEADROOM: u8 = 5;
/// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra slot follows.
const MORE: u8 = 1;

/// Why a slot says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// There is no such kind.
    Kind(u8),
    /// There is no such kind of segmentation.
    GsoKind(u8),
    /// Segments without payload.
    NoPayload,
}

impl core::fmt::Display for Nonsense {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Kind(kind) => write!(out, "extra information of the unknown kind {kind}"),
            Self::GsoKind(kind) => write!(out, "segmentation of the unknown kind {kind}"),
            Self::NoPayload => out.write_str("segmentation into segments of 0 bytes"),
        }
    }
}

impl Extra {
    /// What a slot's first two words say, and whether another extra slot follows.
    ///
    /// # Errors
    /// Nothing that is known.
    pub const fn decode(words: [u32; 2]) -> Result<(Self, bool), Nonsense> {
        let [kind, flags, a, b] = words[0].to_le_bytes();
        let [c, d, e, f] = words[1].to_le_bytes();
        let address = [a, b, c, d, e, f];
        let extra = match kind {
            GSO => {
                let kind = match c {
                    1 => GsoKind::Tcp4,
                    2 => GsoKind::Tcp6,
                    other => return Err(Nonsense::GsoKind(other)),
                };
                let size = u16::from_le_bytes([a, b]);
                if size == 0 {
                    return Err(Nonsense::NoPayload);
                }
                Self::Gso(Gso { kind, size })
            }
            MULTICAST_ADD => Self::MulticastAdd(address),
            MULTICAST_REMOVE => Self::MulticastRemove(address),
            HASH => Self::Hash,
            HEADROOM => Self::Headroom,
            other => return Err(Nonsense::Kind(other)),
        };
        Ok((extra, flags & MORE != 0))
    }
}

impl Gso {
    /// As the only extra slot of a packet.
    pub const fn encode(self) -> [u32; 2] {
        let [low, high] = self.size.to_le_bytes();
        let kind = match self.kind {
            GsoKind::Tcp4 => 1,
            GsoKind::Tcp6 => 2,
        };
        [
            u32::from_le_bytes([GSO, 0, low, high]),
            u32::from_le_bytes([kind, 0, 0, 0]),
        ]
    }
}
