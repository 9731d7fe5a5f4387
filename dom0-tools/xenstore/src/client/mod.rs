//! A blocking client: over the daemon's socket, or over the dom0 kernel's device.

mod requests;
mod transaction;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

pub use requests::Requests;
pub use transaction::Transaction;

use crate::wire::{Decoder, Errno, Kind, Message, PAYLOAD_MAX, strings};

/// The daemon's socket.
pub const SOCKET: &str = "/run/xenstored/socket";
/// The dom0 kernel's device.
pub const DEVICE: &str = "/dev/xen/xenbus";

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum Error {
    /// The store refused the request.
    #[error("xenstore: {request} {subject}: {error}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// About what: usually a path.
        subject: String,
        /// Why not.
        error: Errno,
    },
    /// Nobody answers there.
    #[error("cannot reach xenstored at {path}: {source}; check that xenstored is running", path = path.display())]
    Connect {
        /// The socket or device.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke; open a new one.
    #[error("the connection to xenstored broke: {0}")]
    Io(#[from] std::io::Error),
    /// The daemon does not keep to the protocol.
    #[error("xenstored answered nonsense: {0}")]
    Protocol(String),
    /// The request cannot be put into a message.
    #[error(
        "xenstore: {request} {subject}: the request would be {len} bytes long, and {PAYLOAD_MAX} is the limit"
    )]
    TooLong {
        /// What was asked.
        request: &'static str,
        /// About what.
        subject: String,
        /// Bytes of payload.
        len: usize,
    },
}

impl Error {
    /// The store's reason, if it was the store that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { error, .. } => Some(*error),
            _ => None,
        }
    }

    /// Whether there is no such node.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NotFound)
    }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A watch fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The path that changed.
    pub path: String,
    /// The token that the watch was registered with.
    pub token: String,
}

/// A connection to the store.
#[derive(Debug)]
pub struct Client {
    stream: File,
    decoder: Decoder,
    events: VecDeque<Event>,
    last_request: u32,
}

impl Client {
    /// Connects over [`SOCKET`], or over [`DEVICE`] where there is no socket.
    pub fn open() -> Result<Self> {
        match Self::connect(SOCKET) {
            Err(error) => Self::open_device(DEVICE).map_err(|_| error),
            client => client,
        }
    }

    /// Connects over a socket.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).map_err(|source| Error::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(File::from(OwnedFd::from(stream))))
    }

    /// Connects over the kernel's device. The kernel's own connection carries the requests, so this one outlives a
    /// restart of the daemon.
    pub fn open_device(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map(Self::new).map_err(|source| Error::Connect {
            path: path.to_owned(),
            source,
        })
    }

    fn new(stream: File) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            last_request: 0,
        }
    }

    /// The next watch event: one that is here already, or else one that comes within `timeout` (`None`: ever).
    pub fn wait_event(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            while let Some(message) = self.next_buffered()? {
                if message.kind != Kind::WatchEvent.number() {
                    return Err(Error::Protocol(format!(
                        "a reply of type {} to no request",
                        message.kind
                    )));
                }
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.readable(left)? {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn readable(&self, timeout: Option<Duration>) -> Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(
            &mut [PollFd::new(&self.stream, PollFlags::IN)],
            timeout.as_ref(),
        ) {
            Ok(count) => Ok(count > 0),
            // As if something were there: the caller looks again, and at its deadline too.
            Err(rustix::io::Errno::INTR) => self.readable(timeout.map(|_| Duration::ZERO)),
            Err(error) => Err(Error::Io(error.into())),
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Io(ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.decoder.push(buffer.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }

    /// The next whole message that has arrived; events go into their queue as well.
    fn next_buffered(&mut self) -> Result<Option<Message>> {
        let message = self
            .decoder
            .next_message()
            .map_err(|error| Error::Protocol(error.to_string()))?;
        if let Some(message) = message
            .as_ref()
            .filter(|message| message.kind == Kind::WatchEvent.number())
        {
            match strings(&message.payload).as_deref() {
                Some([path, token]) => self.events.push_back(Event {
                    path: text(path),
                    token: text(token),
                }),
                _ => {
                    return Err(Error::Protocol(
                        "a watch event without path and token".to_owned(),
                    ));
                }
            }
        }
        Ok(message)
    }

    /// Sends a request and waits for its reply.
    fn exchange(
        &mut self,
        kind: Kind,
        transaction: u32,
        name: &'static str,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let subject = || text(payload.split(|&byte| byte == 0).next().unwrap_or_default());
        if payload.len() > PAYLOAD_MAX {
            return Err(Error::TooLong {
                request: name,
                subject: subject(),
                len: payload.len(),
            });
        }
        let subject = subject();
        self.last_request = self.last_request.wrapping_add(1);
        let request = Message::request(kind, self.last_request, transaction, payload);
        self.stream.write_all(&request.encode())?;
        loop {
            match self.next_buffered()? {
                None => self.fill()?,
                Some(message) if message.kind == Kind::WatchEvent.number() => {}
                Some(message) if message.request != request.request => {
                    return Err(Error::Protocol(format!(
                        "a reply to request {}, not to {}",
                        message.request, request.request
                    )));
                }
                Some(message) if message.kind == Kind::Error.number() => {
                    let given = text(
                        strings(&message.payload)
                            .unwrap_or_default()
                            .first()
                            .unwrap_or(&&b""[..]),
                    );
                    let error = Errno::from_name(&given)
                        .ok_or_else(|| Error::Protocol(format!("an error called `{given}`")))?;
                    return Err(Error::Refused {
                        request: name,
                        subject,
                        error,
                    });
                }
                Some(message) if message.kind == request.kind => return Ok(message.payload),
                Some(message) => {
                    return Err(Error::Protocol(format!(
                        "a reply of type {}, not {}",
                        message.kind, request.kind
                    )));
                }
            }
        }
    }
}

impl AsFd for Client {
    /// For polling: readable when an event may be there. Take all that [`Client::wait_event`] has first.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
