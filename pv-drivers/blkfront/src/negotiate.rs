//! What both ends tell each other in xenstore before the first request.

use oxen_blkif::{Abi, info};
use oxen_frontend::{Ends, Refused, Store, state};

/// The kind of device.
pub const KIND: &str = "vbd";

/// A disk as its back end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// It cannot be written to.
    pub read_only: bool,
    /// What was answered may have to be flushed before it is on the medium. Otherwise it is there, and a flush may be refused.
    pub flush: bool,
}

/// Whether the back end has made its offer.
///
/// # Errors
/// It has closed its end.
pub fn offered(store: &mut impl Store, ends: &Ends) -> Result<bool, Refused> {
    ends.back_is(store, state::INIT_WAIT)
}

/// Says whether every grant of a page for data stays, for the same page, as long as the disk is connected; it is to be said before
/// [`announce`]. Returns whether the back end makes use of that.
///
/// # Errors
/// Xenstore does not take it.
pub fn keep_grants(store: &mut impl Store, ends: &Ends, keep: bool) -> Result<bool, Refused> {
    const PERSISTENT: &str = "feature-persistent";
    ends.write(store, PERSISTENT, u32::from(keep))?;
    Ok(keep && ends.back_value::<u32>(store, PERSISTENT) == Some(1))
}

/// Says where our ring and our event channel are, in the guest's own layout.
///
/// # Errors
/// Xenstore does not take it.
pub fn announce(store: &mut impl Store, ends: &Ends, ring: u32, port: u32) -> Result<(), Refused> {
    ends.write(store, "ring-ref", ring)?;
    ends.write(store, "event-channel", port)?;
    ends.write(store, "protocol", Abi::X86_64.name())?;
    ends.write(store, "state", state::INITIALISED)
}

/// The disk, once the back end serves it; then it is connected on our side too.
///
/// # Errors
/// The back end has closed its end, or describes no disk.
pub fn connected(store: &mut impl Store, ends: &Ends) -> Result<Option<Disk>, Refused> {
    if !ends.back_is(store, state::CONNECTED)? {
        return Ok(None);
    }
    let sectors = ends.back_value(store, "sectors");
    let bits: Option<u32> = ends.back_value(store, "info");
    let (Some(sectors), Some(bits)) = (sectors, bits) else {
        return Err(Refused::Nonsense);
    };
    let flush = ends.back_value(store, "feature-flush-cache");
    ends.write(store, "state", state::CONNECTED)?;
    Ok(Some(Disk {
        sectors,
        read_only: bits & info::READ_ONLY != 0,
        flush: flush.is_some_and(|flush: u32| flush != 0),
    }))
}
