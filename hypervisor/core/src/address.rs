//! Addresses and frame numbers as distinct types, so that a host address never stands where a guest one is meant.

use core::fmt;
use core::ops::{Add, Range, Sub};

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a 4 KiB page, the granule of every frame number.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $address:ident, $(#[$frame_doc:meta])* $frame:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $address(pub u64);

        $(#[$frame_doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $frame(pub u64);

        impl $address {
            /// The frame that holds this address.
            pub const fn frame(self) -> $frame {
                $frame(self.0 >> PAGE_SHIFT)
            }

            /// Offset of this address in its 4 KiB page, in bytes.
            pub const fn page_offset(self) -> usize {
                (self.0 & (PAGE_SIZE as u64 - 1)) as usize
            }

            /// This address plus `bytes`, or `None` on overflow.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl $frame {
            /// First address of the frame.
            pub const fn address(self) -> $address {
                $address(self.0 << PAGE_SHIFT)
            }

            /// The bytes of `count` frames from this one on, by address.
            pub const fn bytes(self, count: u64) -> Range<u64> {
                self.address().0..$frame(self.0 + count).address().0
            }

            /// Whether the frame is a multiple of `1 << order` frames.
            pub const fn is_aligned(self, order: u32) -> bool {
                self.0 & ((1 << order) - 1) == 0
            }
        }

        impl Add<u64> for $address {
            type Output = Self;
            fn add(self, bytes: u64) -> Self {
                Self(self.0 + bytes)
            }
        }

        impl Add<u64> for $frame {
            type Output = Self;
            fn add(self, frames: u64) -> Self {
                Self(self.0 + frames)
            }
        }

        impl Sub for $frame {
            type Output = u64;
            fn sub(self, other: Self) -> u64 {
                self.0 - other.0
            }
        }

        impl fmt::Debug for $address {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, ":{:#x}"), self.0)
            }
        }

        impl fmt::Display for $address {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "fn:{:#x}"), self.0)
            }
        }

        impl fmt::Display for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// A machine (host-physical) address, in bytes.
    HostPhys,
    /// A machine frame number: a host-physical address divided by 4 KiB.
    Mfn,
    "m"
);
address!(
    /// A guest-physical address, in bytes.
    GuestPhys,
    /// A guest frame number: a guest-physical address divided by 4 KiB.
    Gfn,
    "g"
);

/// A guest linear (virtual) address: meaningful only under one vCPU's current page tables.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GuestLinear(pub u64);

impl fmt::Debug for GuestLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l:{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_splits_into_frame_and_offset() {
        let address = HostPhys(0x1234_5678);
        assert_eq!(address.frame(), Mfn(0x12345));
        assert_eq!(address.page_offset(), 0x678);
        assert_eq!(Mfn(0x12345).address(), HostPhys(0x1234_5000));
    }

    #[test]
    fn frames_have_their_bytes_up_to_the_next_frame() {
        assert_eq!(Gfn(3).bytes(2), 0x3000..0x5000);
        assert!(Mfn(3).bytes(0).is_empty());
    }

    #[test]
    fn alignment_counts_in_frames() {
        assert!(Gfn(0x200).is_aligned(9));
        assert!(!Gfn(0x201).is_aligned(1));
        assert_eq!(GuestPhys(u64::MAX).checked_add(1), None);
    }
}
