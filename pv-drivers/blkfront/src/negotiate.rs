//! What both ends tell each other in xenstore before the first request.

use core::fmt::{self, Write};
use core::str::FromStr;

use arrayvec::ArrayString;
use oxen_blkif::{Abi, info};

/// Longest path or value that is dealt with here.
const TEXT: usize = 128;
type Text = ArrayString<TEXT>;

/// A guest's way to xenstore.
pub trait Store {
    /// A node's value, if it is there; what does not fit is not there.
    fn read(&mut self, path: &str) -> Option<ArrayString<TEXT>>;
    /// Sets a node's value. False if that cannot be done.
    fn write(&mut self, path: &str, value: &str) -> bool;
}

/// Where the ends of a device are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    front: Text,
    back: Text,
}

/// The ends do not come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such device.
    NoDevice,
    /// The back end has closed its end.
    Closed,
    /// The back end says what cannot be understood.
    Nonsense,
    /// Xenstore does not take what is written.
    Store,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoDevice => "there is no such device",
            Self::Closed => "the back end has closed its end",
            Self::Nonsense => "the back end says what cannot be understood",
            Self::Store => "xenstore takes nothing from here",
        })
    }
}

impl core::error::Error for Refused {}

/// A disk as its back end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// It cannot be written to.
    pub read_only: bool,
}

impl Ends {
    /// Of one of this guest's disks, by its number.
    ///
    /// # Errors
    /// There is none.
    pub fn of_disk(store: &mut impl Store, number: u32) -> Result<Self, Refused> {
        let front = joined(format_args!("device/vbd/{number}"))?;
        let back = store.read(&joined(format_args!("{front}/backend"))?);
        let back = back.ok_or(Refused::NoDevice)?;
        Ok(Self { front, back })
    }

    /// Sets one of our own nodes.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn write(
        &self,
        store: &mut impl Store,
        name: &str,
        value: impl fmt::Display,
    ) -> Result<(), Refused> {
        let path = joined(format_args!("{}/{name}", self.front))?;
        let value = joined(format_args!("{value}"))?;
        store
            .write(&path, &value)
            .then_some(())
            .ok_or(Refused::Store)
    }

    fn back_number<T: FromStr>(&self, store: &mut impl Store, name: &str) -> Option<T> {
        let path = joined(format_args!("{}/{name}", self.back)).ok()?;
        store.read(&path)?.parse().ok()
    }

    /// The back end's state; 0 where it has none.
    pub fn back_state(&self, store: &mut impl Store) -> u32 {
        self.back_number(store, "state").unwrap_or(0)
    }
}

/// Whether the back end has made its offer.
///
/// # Errors
/// It has closed its end.
pub fn offered(store: &mut impl Store, ends: &Ends) -> Result<bool, Refused> {
    match ends.back_state(store) {
        2 => Ok(true),
        5 | 6 => Err(Refused::Closed),
        _ => Ok(false),
    }
}

/// Says where our ring and our event channel are, in the guest's own layout.
///
/// # Errors
/// Xenstore does not take it.
pub fn announce(store: &mut impl Store, ends: &Ends, ring: u32, port: u32) -> Result<(), Refused> {
    ends.write(store, "ring-ref", ring)?;
    ends.write(store, "event-channel", port)?;
    ends.write(store, "protocol", Abi::X86_64.name())?;
    // Initialised.
    ends.write(store, "state", 3)
}

/// The disk, once the back end serves it; then it is connected on our side too.
///
/// # Errors
/// The back end has closed its end, or describes no disk.
pub fn connected(store: &mut impl Store, ends: &Ends) -> Result<Option<Disk>, Refused> {
    match ends.back_state(store) {
        4 => {}
        5 | 6 => return Err(Refused::Closed),
        _ => return Ok(None),
    }
    let sectors = ends.back_number(store, "sectors");
    let bits: Option<u32> = ends.back_number(store, "info");
    let (Some(sectors), Some(bits)) = (sectors, bits) else {
        return Err(Refused::Nonsense);
    };
    ends.write(store, "state", 4)?;
    Ok(Some(Disk {
        sectors,
        read_only: bits & info::READ_ONLY != 0,
    }))
}

fn joined(arguments: fmt::Arguments<'_>) -> Result<Text, Refused> {
    let mut text = Text::new();
    text.write_fmt(arguments).map_err(|_| Refused::Nonsense)?;
    Ok(text)
}
