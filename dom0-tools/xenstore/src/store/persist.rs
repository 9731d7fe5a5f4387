//! The store as a list of changes, and back.

use super::domains::Domain;
use super::transaction::Transaction;
use super::tree::Creator;
use super::watch::Watch;
use super::{Change, ConnectionId, Quotas, Store, Subject};

/// Generations left out at a restart: more than can have been given out since the last record of them.
const GENERATIONS_SKIPPED: u64 = 1 << 32;

impl Store {
    /// Everything that outlives the daemon, as changes to an empty store. Sockets do not.
    pub fn dump(&self) -> Vec<Change> {
        let mut changes = vec![Change::Generation(self.tree.generation())];
        self.tree.for_each(|path, node| {
            let (value, permissions) = (node.value.to_vec(), node.permissions.clone());
            changes.push(Change::Node {
                path: path.clone(),
                value,
                permissions,
            });
        });
        for (path, permissions) in &self.special {
            changes.push(Change::Special {
                path: path.clone(),
                permissions: permissions.clone(),
            });
        }
        for (&domain, state) in &self.domains {
            changes.push(Change::Introduced {
                domain,
                gfn: state.gfn,
                port: state.port,
            });
            if state.ended {
                changes.push(Change::Ended {
                    domain,
                    ended: true,
                });
            }
        }
        let targets = self
            .domains
            .iter()
            .filter_map(|(&domain, state)| Some((domain, state.target?)));
        changes.extend(targets.map(|(domain, target)| Change::Target { domain, target }));
        for (path, watch) in self.watches.iter() {
            if let ConnectionId::Domain(domain) = watch.connection {
                let (relative, token) = (watch.relative, watch.token.clone());
                changes.push(Change::Watch {
                    domain,
                    path: path.clone(),
                    relative,
                    token,
                });
            }
        }
        for (id, connection) in &self.connections {
            if let &ConnectionId::Domain(domain) = id {
                let began = |&transaction| Change::TransactionBegan {
                    domain,
                    transaction,
                };
                changes.extend(connection.transactions.keys().map(began));
            }
        }
        changes
    }

    /// The store that these changes lead to. Transactions that were open can only end with EAGAIN.
    pub fn restore(quotas: Quotas, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut store = Self::new(quotas);
        changes.into_iter().for_each(|change| store.apply(change));
        store
            .tree
            .skip_generations(store.tree.generation().saturating_add(GENERATIONS_SKIPPED));
        for connection in store.connections.values_mut() {
            connection
                .transactions
                .values_mut()
                .for_each(|transaction| *transaction = Transaction::lost(&store.tree));
        }
        store
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Generation(generation) => self.tree.skip_generations(generation),
            Change::Node {
                path,
                value,
                permissions,
            } => {
                let creator = Creator {
                    subject: Subject {
                        domain: 0,
                        target: None,
                    },
                    quota: usize::MAX,
                };
                // dom0 has no quota: this cannot fail.
                let _ = self.tree.create(&path, creator);
                self.tree.set_value(&path, &value);
                self.tree.set_permissions(&path, permissions);
            }
            Change::Removed { path } => {
                self.tree.remove(&path);
            }
            Change::Special { path, permissions } => {
                self.special.insert(path, permissions);
            }
            Change::Introduced { domain, gfn, port } => {
                let target = self.domains.get(&domain).and_then(|domain| domain.target);
                self.connect(ConnectionId::Domain(domain));
                self.domains.insert(
                    domain,
                    Domain {
                        gfn,
                        port,
                        ended: false,
                        target,
                    },
                );
            }
            Change::Released { domain } => {
                self.domains.remove(&domain);
                self.connections.remove(&ConnectionId::Domain(domain));
            }
            Change::Ended { domain, ended } => {
                if let Some(domain) = self.domains.get_mut(&domain) {
                    domain.ended = ended;
                }
            }
            Change::Target { domain, target } => {
                if let Some(domain) = self.domains.get_mut(&domain) {
                    domain.target = Some(target);
                }
            }
            Change::Watch {
                domain,
                path,
                relative,
                token,
            } => {
                let connection = ConnectionId::Domain(domain);
                self.connect(connection);
                self.watches.add(
                    path,
                    Watch {
                        connection,
                        token,
                        relative,
                    },
                );
            }
            Change::Unwatch {
                domain,
                path,
                token,
            } => {
                self.watches
                    .remove(&path, ConnectionId::Domain(domain), &token);
            }
            Change::TransactionBegan {
                domain,
                transaction,
            } => {
                let lost = Transaction::lost(&self.tree);
                let connection = self
                    .connections
                    .entry(ConnectionId::Domain(domain))
                    .or_default();
                connection.transactions.insert(transaction, lost);
                connection.last_transaction = connection.last_transaction.max(transaction);
            }
            Change::TransactionEnded {
                domain,
                transaction,
            } => {
                if let Some(connection) = self.connections.get_mut(&ConnectionId::Domain(domain)) {
                    connection.transactions.remove(&transaction);
                }
            }
            Change::Reset { domain } => {
                self.watches.remove_connection(ConnectionId::Domain(domain));
                if let Some(connection) = self.connections.get_mut(&ConnectionId::Domain(domain)) {
                    connection.transactions.clear();
                }
            }
        }
    }
}
