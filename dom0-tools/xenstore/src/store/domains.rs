//! Requests about domains, and what the daemon learns of their ends.

use super::nodes::decimal;
use super::transaction::Operation;
use super::tree::Creator;
use super::{Answer, Change, ConnectionId, Host, Outgoing, Store, Subject, arguments, ok};
use crate::path::{INTRODUCE_DOMAIN, NodePath, RELEASE_DOMAIN, domain_directory};
use crate::wire::Errno;

/// Ids from here on are reserved (`DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u16 = 0x7ff0;
/// Means the calling domain (`DOMID_SELF`).
const SELF: u16 = 0x7ff0;

/// A domain with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub gfn: u64,
    pub port: u32,
    /// It shut down, and `@releaseDomain` told so.
    pub ended: bool,
    pub target: Option<u16>,
}

impl Store {
    /// Domains that are introduced: id, frame of the ring, port of the ring's event channel.
    pub fn domains(&self) -> impl Iterator<Item = (u16, u64, u32)> {
        self.domains
            .iter()
            .map(|(&id, domain)| (id, domain.gfn, domain.port))
    }

    /// Takes note of whether a domain has shut down; `@releaseDomain` fires when it has and had not.
    pub fn domain_ended(&mut self, id: u16, ended: bool) -> Outgoing {
        let mut events = vec![];
        let Some(domain) = self
            .domains
            .get_mut(&id)
            .filter(|domain| domain.ended != ended)
        else {
            return events;
        };
        domain.ended = ended;
        self.changes.push(Change::Ended { domain: id, ended });
        if ended {
            self.fire_special(RELEASE_DOMAIN, &mut events);
        }
        events
    }

    /// A domain is dying, gone or released: its connection goes, and so do its nodes and its entries in the permissions
    /// of others, which a later domain of the same id must not inherit.
    pub fn remove_domain(&mut self, id: u16) -> Outgoing {
        let mut events = vec![];
        if self.domains.remove(&id).is_none() {
            return events;
        }
        self.disconnect(ConnectionId::Domain(id));
        self.changes.push(Change::Released { domain: id });
        for operation in self.traces_of(id) {
            let creator = Creator {
                subject: Subject {
                    domain: 0,
                    target: None,
                },
                quota: usize::MAX,
            };
            if let Ok(mut effects) = operation.apply(&mut self.tree, creator) {
                if matches!(operation, Operation::SetPermissions { .. }) {
                    // Nobody who is still there may do more or less than before.
                    effects.occurrences.clear();
                }
                self.publish(effects, &mut events);
            }
        }
        self.fire_special(RELEASE_DOMAIN, &mut events);
        events
    }

    /// What takes a domain out of the tree.
    fn traces_of(&self, id: u16) -> Vec<Operation> {
        let mut operations: Vec<Operation> = vec![];
        let mut removed: Option<NodePath> = None;
        self.tree.for_each(|path, node| {
            // Nodes come parents first: what is below a node that goes needs nothing of its own.
            let below = |top: &NodePath| {
                path.as_str()
                    .strip_prefix(top.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            if removed.as_ref().is_some_and(below) {
                return;
            }
            if node.permissions.owner() == id {
                removed = Some(path.clone());
                operations.push(Operation::Remove { path: path.clone() });
            } else if node.permissions.mentions(id) {
                let permissions = node.permissions.without(id);
                operations.push(Operation::SetPermissions {
                    path: path.clone(),
                    permissions,
                });
            }
        });
        operations
    }

    pub(super) fn introduce(
        &mut self,
        payload: &[u8],
        host: &mut dyn Host,
        events: &mut Outgoing,
    ) -> Answer {
        let [id, gfn, port] = arguments(payload)?;
        let (id, gfn, port): (u16, u64, u32) = (decimal(id)?, decimal(gfn)?, decimal(port)?);
        if id == 0 || id >= FIRST_RESERVED || port == 0 {
            return Err(Errno::Invalid);
        }
        host.introduce(id, gfn, port)?;
        let connection = ConnectionId::Domain(id);
        self.connect(connection);
        self.reset(connection);
        let target = self.domains.get(&id).and_then(|domain| domain.target);
        let known = self
            .domains
            .insert(
                id,
                Domain {
                    gfn,
                    port,
                    ended: false,
                    target,
                },
            )
            .is_some();
        self.changes.push(Change::Introduced {
            domain: id,
            gfn,
            port,
        });
        if !known {
            self.fire_special(INTRODUCE_DOMAIN, events);
        }
        ok()
    }

    pub(super) fn release(
        &mut self,
        payload: &[u8],
        host: &mut dyn Host,
        events: &mut Outgoing,
    ) -> Answer {
        let id = self.known_domain(payload)?;
        host.release(id);
        events.extend(self.remove_domain(id));
        ok()
    }

    pub(super) fn resume(&mut self, payload: &[u8]) -> Answer {
        let id = self.known_domain(payload)?;
        self.domain_ended(id, false);
        ok()
    }

    pub(super) fn set_target(&mut self, payload: &[u8]) -> Answer {
        let [id, target] = arguments(payload)?;
        let (id, target): (u16, u16) = (decimal(id)?, decimal(target)?);
        if target == 0 || !self.domains.contains_key(&target) {
            return Err(Errno::NotFound);
        }
        self.domains.get_mut(&id).ok_or(Errno::NotFound)?.target = Some(target);
        self.changes.push(Change::Target { domain: id, target });
        ok()
    }

    pub(super) fn get_domain_path(&self, payload: &[u8]) -> Answer {
        let [id] = arguments(payload)?;
        Ok(format!("{}\0", domain_directory(decimal(id)?)).into_bytes())
    }

    pub(super) fn is_domain_introduced(&self, payload: &[u8]) -> Answer {
        let [id] = arguments(payload)?;
        let id: u16 = decimal(id)?;
        let known = id == 0 || id == SELF || self.domains.contains_key(&id);
        Ok(if known {
            b"T\0".to_vec()
        } else {
            b"F\0".to_vec()
        })
    }

    fn known_domain(&self, payload: &[u8]) -> Result<u16, Errno> {
        let [id] = arguments(payload)?;
        let id = decimal(id)?;
        match id {
            0 => Err(Errno::Invalid),
            _ if self.domains.contains_key(&id) => Ok(id),
            _ => Err(Errno::NotFound),
        }
    }
}
