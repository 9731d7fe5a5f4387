//! What a worker is told: one argument, in JSON.

use oxen_config::vif::Mac;
use serde::{Deserialize, Serialize};

use crate::credit::Rate;

/// A network card to be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The guest.
    pub domid: u16,
    /// Which of its cards.
    pub number: u32,
    /// Its interface here.
    pub interface: String,
    /// The bridge that it joins.
    pub bridge: Option<String>,
    /// The guest's address.
    pub mac: Mac,
    /// Whether packets from other addresses are dropped.
    pub filter: bool,
    /// Largest IP packet in bytes.
    pub mtu: Option<u32>,
    /// Limit on what the guest sends.
    pub rate: Option<Rate>,
    /// What the guest can do.
    pub guest: Guest,
    /// Its queues; not empty.
    pub queues: Vec<Queue>,
}

/// What a guest's front end can do with packets that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Packets of several pages.
    pub scatter: bool,
    /// Large TCP packets in IPv4.
    pub gso4: bool,
    /// Large TCP packets in IPv6.
    pub gso6: bool,
    /// Packets in IPv4 without their checksum.
    pub blank4: bool,
    /// Packets in IPv6 without their checksum.
    pub blank6: bool,
    /// It sends an event when it has given more pages.
    pub tells: bool,
}

/// A pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Page of the ring on which the guest sends.
    pub transmit: u32,
    /// Page of the ring on which it receives.
    pub receive: u32,
    /// Its ports.
    pub events: Events,
}

/// A guest's ports of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Events {
    /// One for both rings.
    One(u32),
    /// One for each.
    Split {
        /// Of the ring on which it sends.
        transmit: u32,
        /// Of the ring on which it receives.
        receive: u32,
    },
}
