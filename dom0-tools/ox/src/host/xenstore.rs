//! Xenstore, through `oxen-xenstore`'s client.

use std::io;
use std::time::{Duration, Instant};

use oxen_xenstore::client::{Client, DEVICE, Error, Requests, SOCKET, Transaction};
use oxen_xenstore::wire::Errno;

use super::{Access, Change, Store};
use crate::failure::Failure;

/// How long xenstored may be away: it is started again at once when it dies, and guests notice nothing of it.
const AWAY: Duration = Duration::from_secs(15);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to xenstored. If it breaks, a new one takes its place and the request is made again: each has the same outcome when it
/// is done twice.
pub struct Connection {
    client: Option<Client>,
}

impl Connection {
    /// Connects; `XENSTORED_PATH` names another socket, as it does for Xen's own tools.
    pub fn open() -> Result<Self, Failure> {
        let mut connection = Self { client: None };
        let reached = connection.with(|_| Ok(()));
        reached.map_err(|error| Failure::Unreachable {
            what: "xenstored",
            error: error.to_string(),
        })?;
        Ok(connection)
    }

    fn with<T>(
        &mut self,
        mut request: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + AWAY;
        let mut told = false;
        loop {
            let client = match self.client.take() {
                Some(client) => Ok(client),
                None => connect(),
            };
            let error = match client {
                Err(error) => error,
                Ok(mut client) => match request(&mut client) {
                    Err(error @ (Error::Io(_) | Error::Protocol(_))) => error,
                    result => {
                        self.client = Some(client);
                        return result;
                    }
                },
            };
            if !may_come_back(&error) || Instant::now() >= deadline {
                return Err(error);
            }
            if !told {
                log::info!("{error}; waiting for it");
                told = true;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A daemon that was killed leaves its socket; where there is none, there was no daemon.
fn may_come_back(error: &Error) -> bool {
    match error {
        Error::Connect { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
        Error::Io(_) => true,
        _ => false,
    }
}

fn connect() -> Result<Client, Error> {
    if let Some(path) = std::env::var_os("XENSTORED_PATH") {
        return Client::connect(path);
    }
    match Client::connect(SOCKET) {
        // It is elsewhere: the kernel knows the way.
        Err(error) if !may_come_back(&error) => Client::open_device(DEVICE).map_err(|_| error),
        client => client,
    }
}

impl Store for Connection {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        self.with(|client| client.read_text(path))
            .map_err(io::Error::other)
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        match self.with(|client| client.directory(path)) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            result => result.map_err(io::Error::other),
        }
    }

    fn stats(&mut self) -> io::Result<String> {
        self.with(|client| client.control(&["stats"]))
            .map_err(io::Error::other)
    }

    fn apply(&mut self, changes: &[Change]) -> io::Result<()> {
        self.with(|client| {
            client.transaction(|transaction| {
                changes
                    .iter()
                    .try_for_each(|change| apply(transaction, change))
            })
        })
        .map_err(io::Error::other)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.with(|client| client.remove(path).map(drop))
            .map_err(io::Error::other)
    }

    fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> io::Result<()> {
        self.with(|client| client.introduce(domid, gfn, port))
            .map_err(io::Error::other)
    }

    fn release(&mut self, domid: u16) -> io::Result<()> {
        match self.with(|client| client.release(domid)) {
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
