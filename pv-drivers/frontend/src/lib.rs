//! What the front ends of PV devices share: how a guest without an operating system finds its back end in xenstore, and what both tell
//! each other there before the first request. What a guest has to bring is a way to xenstore ([`Store`]).
#![no_std]
#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use core::str::FromStr;

use arrayvec::ArrayString;

/// Longest path or value that is dealt with here.
const TEXT: usize = 128;
/// A path or a value.
pub type Text = ArrayString<TEXT>;

/// States of an end (`public/io/xenbus.h`) that a front end looks for or enters.
pub mod state {
    /// It begins.
    pub const INITIALISING: u32 = 1;
    /// The back end has said what it offers.
    pub const INIT_WAIT: u32 = 2;
    /// The front end has said where its rings are.
    pub const INITIALISED: u32 = 3;
    /// It is at work.
    pub const CONNECTED: u32 = 4;
    /// It is being closed.
    pub const CLOSING: u32 = 5;
    /// It is closed.
    pub const CLOSED: u32 = 6;
}

/// A guest's way to xenstore.
pub trait Store {
    /// A node's value, if it is there; what does not fit is not there.
    fn read(&mut self, path: &str) -> Option<Text>;
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

impl Ends {
    /// Of one of this guest's devices: its kind, as `vbd` or `vif`, and its number.
    ///
    /// # Errors
    /// There is none.
    pub fn of(store: &mut impl Store, kind: &str, number: u32) -> Result<Self, Refused> {
        let front = joined(format_args!("device/{kind}/{number}"))?;
        let back = store.read(&joined(format_args!("{front}/backend"))?);
        let back = back.ok_or(Refused::NoDevice)?;
        Ok(Self { front, back })
    }

    /// Path of one of our own nodes.
    ///
    /// # Errors
    /// It is too long.
    pub fn own(&self, name: impl fmt::Display) -> Result<Text, Refused> {
        joined(format_args!("{}/{name}", self.front))
    }

    /// Sets one of our own nodes.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn write(
        &self,
        store: &mut impl Store,
        name: impl fmt::Display,
        value: impl fmt::Display,
    ) -> Result<(), Refused> {
        let value = joined(format_args!("{value}"))?;
        store
            .write(&self.own(name)?, &value)
            .then_some(())
            .ok_or(Refused::Store)
    }

    /// What one of our own nodes says that the tools have written, if it is there and can be understood.
    pub fn own_value<T: FromStr>(&self, store: &mut impl Store, name: &str) -> Option<T> {
        store.read(&self.own(name).ok()?)?.parse().ok()
    }

    /// What one of the back end's nodes says, if it is there and can be understood.
    pub fn back_value<T: FromStr>(&self, store: &mut impl Store, name: &str) -> Option<T> {
        let path = joined(format_args!("{}/{name}", self.back)).ok()?;
        store.read(&path)?.parse().ok()
    }

    /// The back end's state; 0 where it has none.
    pub fn back_state(&self, store: &mut impl Store) -> u32 {
        self.back_value(store, "state").unwrap_or(0)
    }

    /// Whether the back end has come to a state.
    ///
    /// # Errors
    /// It has closed its end.
    pub fn back_is(&self, store: &mut impl Store, wanted: u32) -> Result<bool, Refused> {
        match self.back_state(store) {
            state::CLOSING | state::CLOSED => Err(Refused::Closed),
            found => Ok(found == wanted),
        }
    }
}

fn joined(arguments: fmt::Arguments<'_>) -> Result<Text, Refused> {
    let mut text = Text::new();
    text.write_fmt(arguments).map_err(|_| Refused::Nonsense)?;
    Ok(text)
}
