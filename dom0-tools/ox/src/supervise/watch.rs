//! Waiting for something to happen: a domain stops, or a lock is given back.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use oxen_xenstore::client::{Client, SOCKET};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

/// The path that fires when a domain stops or goes.
const ENDS: &str = "@releaseDomain";
/// How often a lost xenstored is looked for.
const RECONNECT: Duration = Duration::from_secs(1);

/// What the supervisor listens to.
pub struct Watch {
    locks: File,
    store: Option<Client>,
}

impl Watch {
    /// Listens to the directory of records; [`Self::reconnect`] adds xenstore.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let locks: OwnedFd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A lock that is given back is removed; that of a killed process is closed.
        add_watch(
            &locks,
            directory,
            WatchFlags::DELETE | WatchFlags::CLOSE_WRITE,
        )?;
        Ok(Self {
            locks: locks.into(),
            store: None,
        })
    }

    /// Listens to xenstore, if it does not so far. Look at everything afterwards: what happened meanwhile is not told.
    pub fn reconnect(&mut self) {
        if self.store.is_some() {
            return;
        }
        let connected = Client::connect(SOCKET).and_then(|mut client| {
            client.watch(ENDS, "supervisor")?;
            Ok(client)
        });
        match connected {
            Ok(client) => self.store = Some(client),
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Waits until something happened, at most for `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        let limit = match self.store {
            Some(_) => limit,
            None => limit.min(RECONNECT),
        };
        let limit = Timespec::try_from(limit).ok();
        let mut fds = vec![PollFd::new(&self.locks, PollFlags::IN)];
        fds.extend(
            self.store
                .iter()
                .map(|store| PollFd::new(store, PollFlags::IN)),
        );
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.drain()
    }

    /// Takes all that is there: what it was about is looked at anyway.
    fn drain(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.locks.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(store) = &mut self.store {
            match store.wait_event(Some(Duration::ZERO)) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    log::info!("{error}; looking for it");
                    self.store = None;
                }
            }
        }
        Ok(())
    }
}
