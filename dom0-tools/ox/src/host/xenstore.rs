//! Xenstore, through `oxen-xenstore`'s client.

use std::io;

use oxen_xenstore::client::{Client, Error, Requests, Transaction};
use oxen_xenstore::wire::Errno;

use super::{Access, Change, Store};
use crate::failure::Failure;

/// A connection to xenstored.
pub struct Connection {
    client: Client,
}

impl Connection {
    /// Connects; `XENSTORED_PATH` names another socket, as it does for Xen's own tools.
    pub fn open() -> Result<Self, Failure> {
        let client = match std::env::var_os("XENSTORED_PATH") {
            Some(path) => Client::connect(path),
            None => Client::open(),
        };
        let client = client.map_err(|error| Failure::Unreachable {
            what: "xenstored",
            error: error.to_string(),
        })?;
        Ok(Self { client })
    }
}

impl Store for Connection {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        self.client.read_text(path).map_err(io::Error::other)
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        match self.client.directory(path) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            result => result.map_err(io::Error::other),
        }
    }

    fn apply(&mut self, changes: &[Change]) -> io::Result<()> {
        self.client
            .transaction(|transaction| {
                changes
                    .iter()
                    .try_for_each(|change| apply(transaction, change))
            })
            .map_err(|error: Error| io::Error::other(error))
    }

    fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> io::Result<()> {
        self.client
            .introduce(domid, gfn, port)
            .map_err(io::Error::other)
    }

    fn release(&mut self, domid: u16) -> io::Result<()> {
        match self.client.release(domid) {
            // It was never introduced, or xenstored saw it die.
            Err(error) if matches!(error.errno(), Some(Errno::NotFound | Errno::Invalid)) => Ok(()),
            result => result.map_err(io::Error::other),
        }
    }
}

fn apply(transaction: &mut Transaction<'_>, change: &Change) -> Result<(), Error> {
    match change {
        Change::Remove { path } => transaction.remove(path).map(|_| ()),
        Change::Write {
            path,
            value,
            access,
        } => {
            transaction.write(path, value)?;
            match access {
                None => Ok(()),
                Some(Access::HostOnly) => transaction.set_permissions(path, &["n0"]),
                Some(Access::GuestReads(domid)) => {
                    transaction.set_permissions(path, &["n0", &format!("r{domid}")])
                }
                Some(Access::GuestOwns(domid)) => {
                    transaction.set_permissions(path, &[&format!("n{domid}")])
                }
            }
        }
    }
}
