//! Xenstore as back ends use it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use oxen_xenstore::client::{Client, Error, Requests};

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The node that changed.
    pub path: String,
    /// The watch's token.
    pub token: String,
}

/// A connection to xenstore. An error means that the connection is lost.
pub trait Store {
    /// A node's value; `None` if it is not there.
    ///
    /// # Errors
    /// The connection is lost; so for all that follow.
    fn read(&mut self, path: &str) -> io::Result<Option<String>>;
    /// Names of a node's children; none if it is not there.
    ///
    /// # Errors
    /// See above.
    fn list(&mut self, path: &str) -> io::Result<Vec<String>>;
    /// Writes below `base`, all or nothing; nothing if `base` is not there (any more).
    ///
    /// # Errors
    /// See above.
    fn write(&mut self, base: &str, nodes: &[(String, String)]) -> io::Result<()>;
    /// Watches a node and all below it. It fires at once.
    ///
    /// # Errors
    /// See above.
    fn watch(&mut self, path: &str, token: &str) -> io::Result<()>;
    /// Ends a watch.
    ///
    /// # Errors
    /// See above.
    fn unwatch(&mut self, path: &str, token: &str) -> io::Result<()>;
    /// What has changed and was not told yet; does not wait.
    ///
    /// # Errors
    /// See above.
    fn changed(&mut self) -> io::Result<Option<Changed>>;
    /// Readable when something has changed.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl Store for Client {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        Ok(answered(self.read_text(path))?.flatten())
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        Ok(answered(self.directory(path))?.unwrap_or_default())
    }

    fn write(&mut self, base: &str, nodes: &[(String, String)]) -> io::Result<()> {
        let written = self.transaction(|transaction| {
            // Whoever removes a device shall not find it half there again.
            if transaction.read_text(base)?.is_none() {
                return Ok(());
            }
            nodes
                .iter()
                .try_for_each(|(name, value)| transaction.write(&format!("{base}/{name}"), value))
        });
        answered(written).map(|_| ())
    }

    fn watch(&mut self, path: &str, token: &str) -> io::Result<()> {
        answered(Client::watch(self, path, token)).map(|_| ())
    }

    fn unwatch(&mut self, path: &str, token: &str) -> io::Result<()> {
        answered(Client::unwatch(self, path, token)).map(|_| ())
    }

    fn changed(&mut self) -> io::Result<Option<Changed>> {
        let event = self.wait_event(Some(Duration::ZERO));
        let event = event.map_err(io::Error::other)?;
        Ok(event.map(|event| Changed {
            path: event.path,
            token: event.token,
        }))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// A refusal is an answer, to which there is nothing more to say.
fn answered<T>(result: Result<T, Error>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno().is_some() => {
            if !error.is_not_found() {
                log::warn!("{error}");
            }
            Ok(None)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}
