//! The protocol of PV network cards (`public/io/netif.h`), for both ends: what the slots of the two rings mean, and which of them make a
//! valid packet.
//!
//! * [`transmit`]: slots of the ring on which a guest sends, and the [`transmit::Assembler`] that makes packets of them;
//! * [`receive`]: slots of the ring on which it receives, and how a packet is laid out in them;
//! * [`extra`]: what may be said about a packet beyond its bytes;
//! * [`headers`]: where a packet has its checksum, and how that is completed.
//!
//! Whatever a peer writes is parsed once into types that cannot be wrong: a part lies within its page, a packet is as long as its parts
//! together. What cannot be parsed is either a [`transmit::Flaw`] of a packet, which is answered as failed, or a
//! [`transmit::Broken`] peer, whose device is closed.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod extra;
pub mod headers;
pub mod receive;
pub mod transmit;

#[cfg(test)]
mod tests;

/// Bytes of a granted page.
pub const PAGE: usize = 4096;
/// Slots of a packet that every peer takes (`XEN_NETIF_NR_SLOTS_MIN`).
pub const SLOTS_MIN: usize = 18;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// How a request ended (`NETIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Okay,
    /// Failed.
    Error,
    /// The packet was dropped on purpose.
    Dropped,
    /// Takes the place of a slot that was no request.
    Null,
}

impl Status {
    /// As it is on the ring.
    pub const fn number(self) -> i16 {
        match self {
            Self::Okay => 0,
            Self::Error => -1,
            Self::Dropped => -2,
            Self::Null => 1,
        }
    }

    /// What a number on the ring means. What is none of these counts as a failure.
    pub const fn of_number(number: i16) -> Self {
        match number {
            0 => Self::Okay,
            1 => Self::Null,
            -2 => Self::Dropped,
            _ => Self::Error,
        }
    }
}

/// Two 16-bit fields of a 32-bit word, the one at the lower address first.
const fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

const fn joined(low: u16, high: u16) -> u32 {
    let ([a, b], [c, d]) = (low.to_le_bytes(), high.to_le_bytes());
    u32::from_le_bytes([a, b, c, d])
}
