//! What the back ends of PV devices share: how a device is found in xenstore, agreed about with its guest, and given up.
//!
//! * [`device`]: which device, and where its two ends are in xenstore;
//! * [`state`]: the states of xenbus, and what a back end does about them: one table, no I/O;
//! * [`store`]: xenstore as back ends use it;
//! * [`nodes`]: reading what the two ends have written, with errors that name the node;
//! * [`manager`]: the loop that watches the devices of one kind and tells a [`Driver`] when to serve which;
//! * [`worker`]: a process for each device that is served, so that one guest's device is nobody else's trouble;
//! * [`journal`]: what a worker that is killed leaves to the next one;
//! * [`linger`]: when a worker looks for more before it sleeps.
//!
//! A driver says what it offers and how it serves; all else is here. The manager and its workers may be killed at any time: all that they
//! know is what xenstore says and what the journals hold, and who starts again goes on from there.
#![forbid(unsafe_code)]

pub mod device;
pub mod journal;
pub mod linger;
pub mod manager;
pub mod nodes;
pub mod state;
pub mod store;
pub mod worker;

use std::io;
use std::os::fd::BorrowedFd;

use thiserror::Error;

pub use device::DeviceId;
pub use journal::{Journal, Journals};
pub use linger::Linger;
pub use manager::Manager;
pub use nodes::{Ends, Nodes};
pub use state::State;
pub use store::Store;

/// Why a device is not served.
#[derive(Debug, Error)]
pub enum Failure {
    /// The guest broke the protocol. It is its own device that is closed.
    #[error("the guest is to blame: {0}")]
    Guest(String),
    /// Something is missing or failed in this domain.
    #[error("{0}")]
    Host(String),
    /// Xenstore is out of reach. It is tried again later.
    #[error("xenstore: {0}")]
    Store(#[from] io::Error),
}

/// Nodes to write, below the back end's own path: name and value.
pub type Written = Vec<(String, String)>;

/// What became of a device that is served.
#[derive(Debug)]
pub enum Event {
    /// It is not served any more, though nothing is wrong with it: connect it again.
    Lost(DeviceId),
    /// It cannot be served. Nothing of it is in use any more.
    Failed(DeviceId, Failure),
    /// What [`Driver::disconnect`] has begun is over.
    Ended(DeviceId),
}

/// A kind of back end.
pub trait Driver {
    /// The kind's name below `backend/` in xenstore.
    const KIND: &'static str;

    /// What a guest has to know before it begins: features.
    ///
    /// # Errors
    /// The device cannot be served; it is closed.
    fn offer(&mut self, device: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure>;

    /// Begins to serve a device with what its guest has written. What this returns is written before the guest
    /// sees that it is connected. It is called again, for the same guest's rings, when this program or a worker was started again.
    ///
    /// # Errors
    /// As for [`Driver::offer`].
    fn connect(&mut self, device: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure>;

    /// Lets go of all that belongs to the guest. False: it is not served, and nothing of it is mapped or in use. Otherwise [`Event::Ended`]
    /// tells when that is so; [`Driver::connect`] is not called for it before.
    fn disconnect(&mut self, device: DeviceId) -> bool;

    /// Descriptors that are readable when [`Driver::events`] has something to say.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// What has happened to devices that are served.
    fn events(&mut self) -> Vec<Event>;
}
