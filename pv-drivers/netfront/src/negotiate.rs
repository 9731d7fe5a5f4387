//! What both ends tell each other in xenstore before the first frame (`public/io/netif.h`).

use core::fmt;
use core::str::FromStr;

use oxen_frontend::{Ends, Refused, Store, state};

/// The kind of device.
pub const KIND: &str = "vif";

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = Refused;

    /// From six bytes in hexadecimal with colons between them, as the tools write it.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let mut bytes = [0; 6];
        let mut words = text.split(':');
        for byte in &mut bytes {
            let word = words.next().filter(|word| (1..=2).contains(&word.len()));
            let word = word.filter(|word| !word.starts_with('+'));
            let parsed = word.and_then(|word| u8::from_str_radix(word, 16).ok());
            *byte = parsed.ok_or(Refused::Nonsense)?;
        }
        match words.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(Refused::Nonsense),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// What a back end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Our address.
    pub mac: Mac,
    /// It takes frames of several parts.
    pub scatter: bool,
    /// It completes checksums of IPv4 packets.
    pub blank4: bool,
    /// It completes checksums of IPv6 packets.
    pub blank6: bool,
    /// It has large TCP packets in IPv4 cut.
    pub gso4: bool,
    /// It has large TCP packets in IPv6 cut.
    pub gso6: bool,
    /// A queue may have an event channel for each ring.
    pub split_channels: bool,
    /// Queues at most.
    pub queues: u32,
}

/// Which frames this guest takes; what is not wanted the back end completes or cuts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Frames of several pages.
    pub scatter: bool,
    /// IPv4 packets without their checksum.
    pub blank4: bool,
    /// IPv6 packets without their checksum.
    pub blank6: bool,
    /// Large TCP packets in IPv4.
    pub gso4: bool,
    /// Large TCP packets in IPv6.
    pub gso6: bool,
}

/// A queue's ports, which the back end binds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One for both rings.
    One(u32),
    /// One for each, where that is offered.
    Split {
        /// Of the ring on which we send.
        send: u32,
        /// Of the ring on which we receive.
        receive: u32,
    },
}

/// A pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Grant of the ring on which we send.
    pub send: u32,
    /// Grant of the ring on which we receive.
    pub receive: u32,
    /// Its ports.
    pub channels: Channels,
}

/// The back end's offer, once it has made it.
///
/// # Errors
/// It has closed its end, cannot copy frames, or the card has no address.
pub fn offered(store: &mut impl Store, ends: &Ends) -> Result<Option<Offer>, Refused> {
    if !ends.back_is(store, state::INIT_WAIT)? {
        return Ok(None);
    }
    let mut flag = |name: &str| ends.back_value::<u32>(store, name).is_some_and(|n| n != 0);
    if !flag("feature-rx-copy") {
        return Err(Refused::Nonsense);
    }
    let mut offer = Offer {
        mac: Mac([0; 6]),
        scatter: flag("feature-sg"),
        blank4: !flag("feature-no-csum-offload"),
        blank6: flag("feature-ipv6-csum-offload"),
        gso4: flag("feature-gso-tcpv4"),
        gso6: flag("feature-gso-tcpv6"),
        split_channels: flag("feature-split-event-channels"),
        queues: 1,
    };
    offer.mac = ends.own_value(store, "mac").ok_or(Refused::Nonsense)?;
    if let Some(queues) = ends.back_value(store, "multi-queue-max-queues") {
        offer.queues = queues;
    }
    Ok(Some(offer))
}

/// Says where our queues are, and what we take: of an offer's queues at most as many.
///
/// # Errors
/// Xenstore does not take it.
pub fn announce(
    store: &mut impl Store,
    ends: &Ends,
    queues: &[Queue],
    wants: Wants,
) -> Result<(), Refused> {
    ends.write(store, "multi-queue-num-queues", queues.len())?;
    for (nth, queue) in queues.iter().enumerate() {
        // The only one stands beside the other nodes.
        let below = (queues.len() > 1).then_some(nth);
        let mut write = |name: &str, value: u32| match below {
            None => ends.write(store, name, value),
            Some(nth) => ends.write(store, format_args!("queue-{nth}/{name}"), value),
        };
        write("tx-ring-ref", queue.send)?;
        write("rx-ring-ref", queue.receive)?;
        match queue.channels {
            Channels::One(port) => write("event-channel", port)?,
            Channels::Split { send, receive } => {
                write("event-channel-tx", send)?;
                write("event-channel-rx", receive)?;
            }
        }
    }
    for (name, on) in [
        ("request-rx-copy", true),
        ("feature-rx-notify", true),
        ("feature-sg", wants.scatter),
        ("feature-no-csum-offload", !wants.blank4),
        ("feature-ipv6-csum-offload", wants.blank6),
        ("feature-gso-tcpv4", wants.gso4),
        ("feature-gso-tcpv6", wants.gso6),
    ] {
        ends.write(store, name, u32::from(on))?;
    }
    // Linux's back end waits for this state, where one of disks is content with the one before.
    ends.write(store, "state", state::CONNECTED)
}

/// Whether the back end serves the card.
///
/// # Errors
/// It has closed its end.
pub fn connected(store: &mut impl Store, ends: &Ends) -> Result<bool, Refused> {
    ends.back_is(store, state::CONNECTED)
}
