//! What `xenstored` does with requests: everything but the input and output.

mod change;
mod control;
mod domains;
mod nodes;
mod persist;
mod quotas;
mod transaction;
mod tree;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use change::{Change, latin1};
pub use quotas::Quotas;

use crate::path::{INTRODUCE_DOMAIN, NodePath, RELEASE_DOMAIN};
use crate::permission::{Permissions, Subject};
use crate::wire::{Errno, Kind, Message, PAYLOAD_MAX};
use domains::Domain;
use transaction::{Effects, Transaction};
use tree::{Creator, Tree};
use watch::{Occurrence, Watches};

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionId {
    /// The ring of a domain.
    Domain(u16),
    /// A socket of a program in dom0.
    Socket(u32),
}

impl ConnectionId {
    /// The domain in whose name it speaks.
    pub fn domain(self) -> u16 {
        match self {
            Self::Domain(domain) => domain,
            Self::Socket(_) => 0,
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "domain {domain}"),
            Self::Socket(number) => write!(f, "socket {number}"),
        }
    }
}

/// What the store needs of the machine: rings of domains.
pub trait Host {
    /// Connects a domain's ring: maps frame `gfn` of its memory and binds its event channel `port`. If the domain has a
    /// ring already, the new one takes its place.
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<(), Errno>;

    /// Disconnects it.
    fn release(&mut self, domain: u16);
}

/// Messages to send, in this order.
pub type Outgoing = Vec<(ConnectionId, Message)>;

/// The store.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    special: BTreeMap<NodePath, Permissions>,
    watches: Watches,
    connections: BTreeMap<ConnectionId, Connection>,
    domains: BTreeMap<u16, Domain>,
    quotas: Quotas,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Connection {
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
}

/// A request while it is dealt with.
#[derive(Clone, Copy, Debug)]
struct Call {
    from: ConnectionId,
    subject: Subject,
    transaction: u32,
}

type Answer = Result<Vec<u8>, Errno>;

impl Store {
    /// A store with nothing in it but the root.
    pub fn new(quotas: Quotas) -> Self {
        let special = [INTRODUCE_DOMAIN, RELEASE_DOMAIN]
            .map(|name| (NodePath::special(name), Permissions::private(0)));
        Self {
            tree: Tree::new(0),
            special: BTreeMap::from(special),
            watches: Watches::default(),
            connections: BTreeMap::new(),
            domains: BTreeMap::new(),
            quotas,
            changes: vec![],
        }
    }

    /// Lets requests come from `connection`. Domains other than dom0 connect by INTRODUCE.
    pub fn connect(&mut self, connection: ConnectionId) {
        self.connections.entry(connection).or_default();
    }

    /// The connection is closed: its watches and transactions go.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.reset(connection);
        self.connections.remove(&connection);
    }

    /// Deals with one request. The first message is the reply.
    pub fn handle(
        &mut self,
        from: ConnectionId,
        request: &Message,
        host: &mut dyn Host,
    ) -> Outgoing {
        if !self.connections.contains_key(&from) {
            log::warn!("{from} sent a request and is not connected");
            return vec![];
        }
        let mut events = vec![];
        let reply = match self.dispatch(from, request, host, &mut events) {
            Ok(payload) if payload.len() <= PAYLOAD_MAX => request.reply(payload),
            Ok(_) => request.refusal(Errno::TooBig),
            Err(error) => request.refusal(error),
        };
        std::iter::once((from, reply)).chain(events).collect()
    }

    /// What changed since the last call, for keeping.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn dispatch(
        &mut self,
        from: ConnectionId,
        request: &Message,
        host: &mut dyn Host,
        events: &mut Outgoing,
    ) -> Answer {
        let kind = Kind::from_number(request.kind).ok_or(Errno::Unsupported)?;
        let call = Call {
            from,
            subject: self.subject(from),
            transaction: request.transaction,
        };
        if call.transaction != 0
            && !self
                .connection(from)?
                .transactions
                .contains_key(&call.transaction)
        {
            return Err(Errno::NotFound);
        }
        let payload = &request.payload;
        match kind {
            Kind::Directory => self.directory(call, payload),
            Kind::DirectoryPart => self.directory_part(call, payload),
            Kind::Read => self.read(call, payload),
            Kind::GetPermissions => self.get_permissions(call, payload),
            Kind::Write => self.write(call, payload, events),
            Kind::MakeDirectory => self.make_directory(call, payload, events),
            Kind::Remove => self.remove(call, payload, events),
            Kind::SetPermissions => self.set_permissions(call, payload, events),
            Kind::Watch => self.watch(call, payload, events),
            Kind::Unwatch => self.unwatch(call, payload),
            Kind::ResetWatches => {
                self.reset(from);
                ok()
            }
            Kind::TransactionStart => self.transaction_start(call),
            Kind::TransactionEnd => self.transaction_end(call, payload, events),
            Kind::GetDomainPath => self.get_domain_path(payload),
            Kind::IsDomainIntroduced => self.is_domain_introduced(payload),
            Kind::Control | Kind::Introduce | Kind::Release | Kind::Resume | Kind::SetTarget
                if !call.subject.is_privileged() =>
            {
                Err(Errno::Access)
            }
            Kind::Control => self.control(payload),
            Kind::Introduce => self.introduce(payload, host, events),
            Kind::Release => self.release(payload, host, events),
            Kind::Resume => self.resume(payload),
            Kind::SetTarget => self.set_target(payload),
            Kind::WatchEvent | Kind::Error => Err(Errno::Unsupported),
        }
    }

    /// Removes all watches and transactions of a connection: it begins anew.
    pub fn reset(&mut self, connection: ConnectionId) {
        self.watches.remove_connection(connection);
        if let Some(state) = self.connections.get_mut(&connection) {
            state.transactions.clear();
        }
        if let ConnectionId::Domain(domain) = connection {
            self.changes.push(Change::Reset { domain });
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Result<&mut Connection, Errno> {
        self.connections.get_mut(&id).ok_or(Errno::Io)
    }

    fn subject(&self, connection: ConnectionId) -> Subject {
        let domain = connection.domain();
        Subject {
            domain,
            target: self.domains.get(&domain).and_then(|domain| domain.target),
        }
    }

    fn creator(&self, call: Call) -> Creator {
        Creator {
            subject: call.subject,
            quota: self.quotas.nodes,
        }
    }

    /// Keeps what came of operations on the store itself, and tells the watchers.
    fn publish(&mut self, effects: Effects, events: &mut Outgoing) {
        self.changes.extend(effects.changes);
        for occurrence in &effects.occurrences {
            events.extend(
                self.watches
                    .fire(occurrence, |connection| self.subject(connection)),
            );
        }
    }

    fn fire_special(&mut self, name: &str, events: &mut Outgoing) {
        let path = NodePath::special(name);
        let permissions = self.special.get(&path).cloned().into_iter().collect();
        let occurrence = Occurrence {
            path,
            exact: true,
            permissions,
        };
        self.publish(
            Effects {
                occurrences: vec![occurrence],
                changes: vec![],
            },
            events,
        );
    }
}

fn ok() -> Answer {
    Ok(b"OK\0".to_vec())
}

/// Exactly `N` strings.
fn arguments<const N: usize>(payload: &[u8]) -> Result<[&[u8]; N], Errno> {
    crate::wire::strings(payload)
        .and_then(|strings| strings.try_into().ok())
        .ok_or(Errno::Invalid)
}
