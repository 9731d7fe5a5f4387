//! Watches: who wants to hear of which path.

use std::collections::BTreeMap;

use super::{Answer, Call, Change, ConnectionId, Outgoing, Store, arguments, ok};
use crate::path::NodePath;
use crate::permission::{Permissions, Subject};
use crate::wire::{Errno, Message};

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub connection: ConnectionId,
    pub token: Vec<u8>,
    /// Registered by a relative name: events name relative paths too.
    pub relative: bool,
}

impl Watch {
    /// The event that tells of `path`; `None` if it would not fit in a message.
    pub fn event(&self, path: &NodePath) -> Option<Message> {
        let name = if self.relative {
            path.relative_to(self.connection.domain())
        } else {
            path.as_str()
        };
        let message = Message::event(name, &self.token);
        (message.payload.len() <= crate::wire::PAYLOAD_MAX).then_some(message)
    }
}

/// Something that watchers are to hear of.
#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    pub path: NodePath,
    /// Only watches of this very path fire, not those above: they heard of the removal of an ancestor.
    pub exact: bool,
    /// Permissions before and after; who may read by any of them hears of it.
    pub permissions: Vec<Permissions>,
}

impl Occurrence {
    fn concerns(&self, subject: Subject) -> bool {
        self.permissions
            .iter()
            .any(|list| list.allowed(subject).reads())
    }
}

/// All registrations, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    by_path: BTreeMap<NodePath, Vec<Watch>>,
}

impl Watches {
    /// Registers one; false if this connection has the same path with the same token already.
    pub fn add(&mut self, path: NodePath, watch: Watch) -> bool {
        let list = self.by_path.entry(path).or_default();
        let new = !list
            .iter()
            .any(|other| other.connection == watch.connection && other.token == watch.token);
        if new {
            list.push(watch);
        }
        new
    }

    /// Removes one; false if there was none.
    pub fn remove(&mut self, path: &NodePath, connection: ConnectionId, token: &[u8]) -> bool {
        let Some(list) = self.by_path.get_mut(path) else {
            return false;
        };
        let before = list.len();
        list.retain(|watch| watch.connection != connection || watch.token != token);
        let found = list.len() < before;
        if list.is_empty() {
            self.by_path.remove(path);
        }
        found
    }

    /// Removes all of one connection.
    pub fn remove_connection(&mut self, connection: ConnectionId) {
        self.by_path.retain(|_, list| {
            list.retain(|watch| watch.connection != connection);
            !list.is_empty()
        });
    }

    /// How many a connection has.
    pub fn count(&self, connection: ConnectionId) -> usize {
        self.by_path
            .values()
            .flatten()
            .filter(|watch| watch.connection == connection)
            .count()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&NodePath, &Watch)> {
        self.by_path
            .iter()
            .flat_map(|(path, list)| list.iter().map(move |watch| (path, watch)))
    }

    /// The events an occurrence causes. `subject` tells in whose name a connection reads.
    pub fn fire(
        &self,
        occurrence: &Occurrence,
        subject: impl Fn(ConnectionId) -> Subject,
    ) -> Vec<(ConnectionId, Message)> {
        let mut events = vec![];
        let levels = if occurrence.exact { 1 } else { usize::MAX };
        let watches = occurrence
            .path
            .upwards()
            .take(levels)
            .filter_map(|path| self.by_path.get(path))
            .flatten();
        for watch in watches.filter(|watch| occurrence.concerns(subject(watch.connection))) {
            match watch.event(&occurrence.path) {
                Some(event) => events.push((watch.connection, event)),
                None => log::debug!(
                    "an event of {} for {} would not fit in a message",
                    occurrence.path,
                    watch.connection
                ),
            }
        }
        events
    }
}

impl Store {
    pub(super) fn watch(&mut self, call: Call, payload: &[u8], events: &mut Outgoing) -> Answer {
        let [name, token] = arguments(payload)?;
        let path = NodePath::parse_or_special(name, call.from.domain()).ok_or(Errno::Invalid)?;
        let watch = Watch {
            connection: call.from,
            token: token.to_vec(),
            relative: !name.starts_with(b"/"),
        };
        if !call.subject.is_privileged() && self.watches.count(call.from) >= self.quotas.watches {
            return Err(Errno::TooBig);
        }
        // The event that every watch begins with.
        let first = watch.event(&path).ok_or(Errno::Invalid)?;
        let (relative, token) = (watch.relative, watch.token.clone());
        if !self.watches.add(path.clone(), watch) {
            return Err(Errno::Exists);
        }
        if let ConnectionId::Domain(domain) = call.from {
            self.changes.push(Change::Watch {
                domain,
                path,
                relative,
                token,
            });
        }
        events.push((call.from, first));
        ok()
    }

    pub(super) fn unwatch(&mut self, call: Call, payload: &[u8]) -> Answer {
        let [name, token] = arguments(payload)?;
        let path = NodePath::parse_or_special(name, call.from.domain()).ok_or(Errno::Invalid)?;
        if !self.watches.remove(&path, call.from, token) {
            return Err(Errno::NotFound);
        }
        if let ConnectionId::Domain(domain) = call.from {
            self.changes.push(Change::Unwatch {
                domain,
                path,
                token: token.to_vec(),
            });
        }
        ok()
    }
}
