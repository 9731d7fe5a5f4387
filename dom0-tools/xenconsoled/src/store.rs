//! What the daemon needs of xenstore.

mod xenstore;

use std::io;
use std::os::fd::BorrowedFd;

pub use xenstore::XenStore;

/// A guest's console as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Name of the guest; empty if it has none.
    pub name: String,
    /// Guest frame number of the ring (`console/ring-ref`), by which another ring is known as such; it is mapped by its grant.
    pub gfn: u64,
    /// The guest's event channel (`console/port`).
    pub port: u32,
}

/// Something changed in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A domain came, shut down or went.
    Domains,
    /// A domain's console was described or changed.
    Console(u16),
}

/// A connection to xenstore. An error means that the connection is of no more use.
#[allow(clippy::missing_errors_doc)]
pub trait Store {
    /// Domains that the store knows, without dom0.
    fn domains(&mut self) -> io::Result<Vec<u16>>;
    /// A domain's console; `None` if it is not (wholly) described.
    fn console(&mut self, domid: u16) -> io::Result<Option<Keys>>;
    /// Reports [`Change::Console`] of a domain from now on, once at once.
    fn watch(&mut self, domid: u16) -> io::Result<()>;
    /// Reports it no more.
    fn unwatch(&mut self, domid: u16) -> io::Result<()>;
    /// Says where a domain's console is to be found.
    fn publish(&mut self, domid: u16, tty: &str) -> io::Result<()>;
    /// The next change that is here already.
    fn change(&mut self) -> io::Result<Option<Change>>;
    /// Readable when there may be a change.
    fn fd(&self) -> BorrowedFd<'_>;
}
