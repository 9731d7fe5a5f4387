//! Transactions: a snapshot to work on, what was seen of it, and what is to be done.
//!
//! A transaction commits if everything it saw is still so; its changes are then made anew on the store as it is by
//! then. So a committed transaction is as good as all its requests at the moment of the commit.

use std::collections::BTreeSet;

use super::change::Change;
use super::tree::{Creator, Node, QuotaExceeded, Tree};
use super::watch::Occurrence;
use crate::path::NodePath;
use crate::permission::{Permissions, Subject};
use crate::wire::Errno;

/// What of a node a transaction relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    /// That it exists or not, value and permissions.
    Content,
    /// Names of its children.
    Listing,
}

/// What a request needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    Own,
}

/// A change that a request asked for and that was allowed.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create {
        path: NodePath,
    },
    Write {
        path: NodePath,
        value: Vec<u8>,
    },
    Remove {
        path: NodePath,
    },
    SetPermissions {
        path: NodePath,
        permissions: Permissions,
    },
}

/// What came of an operation: who is to hear of it, what is to be kept.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub occurrences: Vec<Occurrence>,
    pub changes: Vec<Change>,
}

impl Operation {
    /// Does it. The caller has checked that `creator` may.
    pub fn apply(&self, tree: &mut Tree, creator: Creator) -> Result<Effects, QuotaExceeded> {
        let mut effects = Effects::default();
        match self {
            Self::Create { path } => {
                let created = tree.create(path, creator)?;
                if !created.is_empty() {
                    effects.note(tree, path, None, &created);
                }
            }
            Self::Write { path, value } => {
                let mut changed = tree.create(path, creator)?;
                tree.set_value(path, value);
                if changed.is_empty() {
                    changed.push(path.clone());
                }
                effects.note(tree, path, None, &changed);
            }
            Self::SetPermissions { path, permissions } => {
                let before = tree.get(path).map(|node| node.permissions.clone());
                tree.set_permissions(path, permissions.clone());
                effects.note(tree, path, before, std::slice::from_ref(path));
            }
            Self::Remove { path } => {
                let removed = tree.remove(path);
                if !removed.is_empty() {
                    effects.changes.push(Change::Removed { path: path.clone() });
                }
                effects
                    .occurrences
                    .extend(
                        removed
                            .into_iter()
                            .enumerate()
                            .map(|(nth, (path, permissions))| Occurrence {
                                path,
                                exact: nth > 0,
                                permissions: vec![permissions],
                            }),
                    );
            }
        }
        Ok(effects)
    }
}

impl Effects {
    fn note(
        &mut self,
        tree: &Tree,
        path: &NodePath,
        before: Option<Permissions>,
        changed: &[NodePath],
    ) {
        for path in changed {
            if let Some(node) = tree.get(path) {
                let (value, permissions) = (node.value.to_vec(), node.permissions.clone());
                self.changes.push(Change::Node {
                    path: path.clone(),
                    value,
                    permissions,
                });
            }
        }
        let after = tree.get(path).map(|node| node.permissions.clone());
        let permissions = before.into_iter().chain(after).collect();
        self.occurrences.push(Occurrence {
            path: path.clone(),
            exact: false,
            permissions,
        });
    }

    /// Adds what came of another operation.
    pub fn append(&mut self, mut other: Self) {
        self.occurrences.append(&mut other.occurrences);
        self.changes.append(&mut other.changes);
    }
}

/// The node at `path` if `subject` has `right` to it. Where there is none, the nearest node above decides whether the
/// subject may know that.
pub(crate) fn resolve<'a>(
    tree: &'a Tree,
    path: &NodePath,
    subject: Subject,
    right: Right,
) -> Result<&'a Node, Errno> {
    let (node, _, complete) = tree.walk(path);
    let permissions = &node.permissions;
    let access = permissions.allowed(subject);
    let allowed = match right {
        Right::Read => access.reads(),
        Right::Write => access.writes(),
        Right::Own if complete => permissions.is_owner(subject),
        Right::Own => access.writes(),
    };
    match (allowed, complete) {
        (false, _) => Err(Errno::Access),
        (true, false) => Err(Errno::NotFound),
        (true, true) => Ok(node),
    }
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    base: Tree,
    work: Tree,
    seen: BTreeSet<(NodePath, Aspect)>,
    operations: Vec<Operation>,
    /// Its work was lost in a crash of the daemon: it can only end with EAGAIN.
    lost: bool,
}

impl Transaction {
    /// Begins on the store as it is.
    pub fn new(tree: &Tree) -> Self {
        Self {
            base: tree.clone(),
            work: tree.clone(),
            seen: BTreeSet::new(),
            operations: vec![],
            lost: false,
        }
    }

    /// One that stands for a transaction whose work is lost.
    pub fn lost(tree: &Tree) -> Self {
        Self {
            lost: true,
            ..Self::new(tree)
        }
    }

    /// The store as the transaction sees it.
    pub fn tree(&self) -> &Tree {
        &self.work
    }

    /// How much it has seen and done.
    pub fn size(&self) -> usize {
        self.seen.len() + self.operations.len()
    }

    /// Notes that an answer relies on the node at `path`, or on there being none.
    pub fn rely_on(&mut self, path: &NodePath, aspect: Aspect) {
        // Where it is missing, the nearest node above decided about access, and everything in between is missing too.
        let (_, steps, complete) = self.work.walk(path);
        let levels = if complete {
            0
        } else {
            path.components().count() - steps
        };
        let mut above = path.clone();
        for _ in 0..levels {
            let Some(parent) = above.parent() else { break };
            self.seen.insert((parent.clone(), Aspect::Content));
            above = parent;
        }
        self.seen.insert((path.clone(), aspect));
    }

    /// Does an operation within the transaction.
    pub fn perform(&mut self, operation: Operation, creator: Creator) -> Result<(), QuotaExceeded> {
        operation.apply(&mut self.work, creator)?;
        self.operations.push(operation);
        Ok(())
    }

    /// Makes the changes on `tree`, all or none of them.
    pub fn commit(self, tree: &mut Tree, creator: Creator) -> Result<Effects, Errno> {
        let same = |(path, aspect): &(NodePath, Aspect)| {
            let generation = |tree: &Tree| {
                tree.get(path).map(|node| match aspect {
                    Aspect::Content => node.content,
                    Aspect::Listing => node.listing,
                })
            };
            generation(&self.base) == generation(tree)
        };
        if self.lost || !self.seen.iter().all(same) {
            return Err(Errno::Again);
        }
        let (mut candidate, mut effects) = (tree.clone(), Effects::default());
        for operation in &self.operations {
            effects.append(
                operation
                    .apply(&mut candidate, creator)
                    .map_err(|QuotaExceeded| Errno::NoSpace)?,
            );
        }
        *tree = candidate;
        Ok(effects)
    }
}
