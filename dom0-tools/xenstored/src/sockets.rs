//! Programs of dom0 on the Unix socket.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result};
use oxen_xenstore::outbox::Outbox;
use oxen_xenstore::wire::{Decoder, Message};
use rustix::event::PollFlags;

use crate::rings::{REQUESTS_PER_TURN, WAITING_HIGH};

/// A program that lets this many bytes wait is cut off.
const WAITING_MAX: usize = 16 << 20;
/// Programs connected at once.
const CONNECTIONS_MAX: usize = 512;

/// One program.
pub struct Peer {
    /// Its connection.
    pub stream: UnixStream,
    decoder: Decoder,
    outbox: Outbox,
    /// Whole requests may wait in the decoder.
    backlog: bool,
    closed: bool,
}

/// The socket and all that are connected to it.
pub struct Sockets {
    /// Where they connect.
    pub listener: UnixListener,
    peers: BTreeMap<u32, Peer>,
    last: u32,
}

impl Sockets {
    /// Opens the socket. One that an earlier daemon left there is removed: nobody else uses it, by the state's lock.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot open the socket {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            peers: BTreeMap::new(),
            last: 0,
        })
    }

    /// Takes in who waits to be connected; gives their numbers.
    pub fn accept(&mut self) -> Vec<u32> {
        let mut new = vec![];
        loop {
            match self.listener.accept() {
                Ok((stream, _))
                    if self.peers.len() < CONNECTIONS_MAX
                        && stream.set_nonblocking(true).is_ok() =>
                {
                    self.last = self.last.wrapping_add(1);
                    let outbox = Outbox::new(usize::MAX);
                    let peer = Peer {
                        stream,
                        decoder: Decoder::default(),
                        outbox,
                        backlog: false,
                        closed: false,
                    };
                    self.peers.insert(self.last, peer);
                    new.push(self.last);
                }
                Ok(_) => log::warn!("a connection is refused: {} are open", self.peers.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return new,
                Err(error) => {
                    log::error!("cannot accept a connection: {error}");
                    return new;
                }
            }
        }
    }

    /// The connected, by number, and what each is to be polled for.
    pub fn polled(&self) -> impl Iterator<Item = (u32, &UnixStream, PollFlags)> {
        self.peers.iter().map(|(&number, peer)| {
            let mut flags = PollFlags::empty();
            flags.set(
                PollFlags::IN,
                peer.outbox.waiting() <= WAITING_HIGH && !peer.backlog,
            );
            flags.set(PollFlags::OUT, peer.outbox.waiting() > 0);
            (number, &peer.stream, flags)
        })
    }

    /// Peers with requests that need no further bytes.
    pub fn backlog(&self) -> Vec<u32> {
        let due = |peer: &Peer| peer.backlog && peer.outbox.waiting() <= WAITING_HIGH;
        self.peers
            .iter()
            .filter(|(_, peer)| due(peer))
            .map(|(&number, _)| number)
            .collect()
    }

    /// The next requests of one peer.
    pub fn take(&mut self, number: u32) -> Vec<Message> {
        let Some(peer) = self.peers.get_mut(&number) else {
            return vec![];
        };
        if !peer.backlog {
            let mut buffer = [0; 8192];
            match peer.stream.read(&mut buffer) {
                Ok(0) => peer.closed = true,
                Ok(count) => peer.decoder.push(buffer.get(..count).unwrap_or_default()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => peer.closed = true,
            }
        }
        let mut requests = vec![];
        peer.backlog = true;
        while peer.backlog && requests.len() < REQUESTS_PER_TURN {
            match peer.decoder.next_message() {
                Ok(Some(message)) => requests.push(message),
                Ok(None) => peer.backlog = false,
                Err(error) => {
                    log::warn!("socket {number} is closed: {error}");
                    (peer.backlog, peer.closed) = (false, true);
                }
            }
        }
        requests
    }

    /// Puts a message at the end of what waits for a peer.
    pub fn push(&mut self, number: u32, message: &Message) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.outbox.push(message);
        }
    }

    /// Sends what can be sent, and drops who is done; gives their numbers.
    pub fn flush(&mut self) -> Vec<u32> {
        for (number, peer) in &mut self.peers {
            while !peer.outbox.front().is_empty() {
                match peer.stream.write(peer.outbox.front()) {
                    Ok(count) => peer.outbox.advance(count),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {
                        (peer.closed, peer.backlog) = (true, false);
                        break;
                    }
                }
            }
            if peer.outbox.waiting() > WAITING_MAX {
                log::warn!("socket {number} is closed: it does not read what is sent to it");
                (peer.closed, peer.backlog) = (true, false);
            }
        }
        let gone: Vec<u32> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.closed && !peer.backlog)
            .map(|(&number, _)| number)
            .collect();
        for number in &gone {
            self.peers.remove(number);
        }
        gone
    }
}
