//! The nodes: a tree whose copies share what is equal, so that a transaction's snapshot costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::path::NodePath;
use crate::permission::{Permissions, Subject};

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Arc<[u8]>,
    pub permissions: Permissions,
    pub children: BTreeMap<String, Arc<Node>>,
    /// Generation of the last change to value or permissions, or of the creation.
    pub content: u64,
    /// Generation of the last child that came or went, or of the creation.
    pub listing: u64,
}

impl Node {
    fn new(permissions: Permissions, generation: u64) -> Self {
        Self {
            value: Arc::from([]),
            permissions,
            children: BTreeMap::new(),
            content: generation,
            listing: generation,
        }
    }
}

/// All nodes, and how many each unprivileged domain owns.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<Node>,
    owned: BTreeMap<u16, usize>,
    generation: u64,
}

/// The requester would own more nodes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuotaExceeded;

/// In whose name nodes are created, and how many it may own in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creator {
    pub subject: Subject,
    pub quota: usize,
}

impl Tree {
    /// A tree with nothing but the root. Generations start above `generation`.
    pub fn new(generation: u64) -> Self {
        Self {
            root: Arc::new(Node::new(Permissions::private(0), generation)),
            owned: BTreeMap::new(),
            generation,
        }
    }

    /// The node at `path`.
    pub fn get(&self, path: &NodePath) -> Option<&Node> {
        if path.is_special() {
            return None;
        }
        path.components().try_fold(&*self.root, |node, name| {
            node.children.get(name).map(|child| &**child)
        })
    }

    /// The last node on the way from the root to `path`, how many steps lead to it, and whether it is `path` itself.
    pub fn walk(&self, path: &NodePath) -> (&Node, usize, bool) {
        let (mut node, mut steps) = (&*self.root, 0);
        for name in path.components() {
            match node.children.get(name) {
                Some(child) => (node, steps) = (&**child, steps + 1),
                None => return (node, steps, false),
            }
        }
        (node, steps, true)
    }

    /// Nodes that `domain` owns.
    pub fn owned_by(&self, domain: u16) -> usize {
        self.owned.get(&domain).copied().unwrap_or(0)
    }

    /// Creates `path` and what is missing above it. A new node takes over its parent's permissions, but belongs to its
    /// creator unless that is dom0. Gives the paths that are new.
    pub fn create(
        &mut self,
        path: &NodePath,
        creator: Creator,
    ) -> Result<Vec<NodePath>, QuotaExceeded> {
        let (_, steps, complete) = self.walk(path);
        if complete {
            return Ok(vec![]);
        }
        let names: Vec<&str> = path.components().skip(steps).collect();
        let missing = names.len();
        let above = path
            .components()
            .take(steps)
            .fold(NodePath::root(), |above, name| above.child(name));
        let domain = creator.subject.domain;
        if !creator.subject.is_privileged() && self.owned_by(domain) + missing > creator.quota {
            return Err(QuotaExceeded);
        }
        let generation = self.next_generation();
        let Some(mut node) = self.edit(&above) else {
            return Ok(vec![]);
        };
        let (mut at, mut created, mut owners) = (above, vec![], vec![]);
        node.listing = generation;
        for name in names {
            let permissions = match creator.subject.is_privileged() {
                true => node.permissions.clone(),
                false => node.permissions.owned_by(domain),
            };
            owners.push(permissions.owner());
            let child = Arc::new(Node::new(permissions, generation));
            node = Arc::make_mut(node.children.entry(name.to_owned()).or_insert(child));
            at = at.child(name);
            created.push(at.clone());
        }
        owners.into_iter().for_each(|owner| self.count(owner, 1));
        Ok(created)
    }

    /// Sets the value of a node that exists.
    pub fn set_value(&mut self, path: &NodePath, value: &[u8]) {
        let generation = self.next_generation();
        if let Some(node) = self.edit(path) {
            node.value = value.into();
            node.content = generation;
        }
    }

    /// Sets the permissions of a node that exists.
    pub fn set_permissions(&mut self, path: &NodePath, permissions: Permissions) {
        let generation = self.next_generation();
        let Some(node) = self.edit(path) else { return };
        let (old, new) = (node.permissions.owner(), permissions.owner());
        node.permissions = permissions;
        node.content = generation;
        self.count(old, -1);
        self.count(new, 1);
    }

    /// Takes out `path` and all below it. Gives what was removed with its permissions, the top one first.
    pub fn remove(&mut self, path: &NodePath) -> Vec<(NodePath, Permissions)> {
        let generation = self.next_generation();
        let Some(parent) = path.parent() else {
            return vec![];
        };
        if self.get(path).is_none() {
            return vec![];
        }
        let Some(node) = self.edit(&parent) else {
            return vec![];
        };
        node.listing = generation;
        let Some(gone) = node.children.remove(path.name()) else {
            return vec![];
        };
        let mut removed = vec![];
        visit(path.clone(), &gone, &mut |path, node| {
            removed.push((path.clone(), node.permissions.clone()))
        });
        for (_, permissions) in &removed {
            self.count(permissions.owner(), -1);
        }
        removed
    }

    /// The generation that the next change will exceed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes the next change exceed `generation`.
    pub fn skip_generations(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// All nodes, each after its parent.
    pub fn for_each(&self, mut visitor: impl FnMut(&NodePath, &Node)) {
        visit(NodePath::root(), &self.root, &mut visitor);
    }

    /// Counts owners anew and compares: `None` if all is well, else what is wrong.
    pub fn check(&self) -> Option<String> {
        let mut owned = BTreeMap::new();
        self.for_each(|path, node| {
            if !path.is_root() && node.permissions.owner() != 0 {
                *owned.entry(node.permissions.owner()).or_insert(0) += 1;
            }
        });
        (owned != self.owned).then(|| {
            format!(
                "nodes by owner are {owned:?}, the books say {:?}",
                self.owned
            )
        })
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The node at `path` for changing; what a snapshot shares with us on the way is copied.
    fn edit(&mut self, path: &NodePath) -> Option<&mut Node> {
        self.get(path)?;
        path.components()
            .try_fold(Arc::make_mut(&mut self.root), |node, name| {
                node.children.get_mut(name).map(Arc::make_mut)
            })
    }

    /// dom0's nodes and the root are nobody's quota.
    fn count(&mut self, owner: u16, by: isize) {
        if owner != 0 {
            let count = self.owned.entry(owner).or_insert(0);
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.owned.remove(&owner);
            }
        }
    }
}

/// Depth first, parents before children, with no recursion: a domain chooses how deep its nodes go.
fn visit(path: NodePath, node: &Node, visitor: &mut impl FnMut(&NodePath, &Node)) {
    let mut waiting = vec![(path, node)];
    while let Some((path, node)) = waiting.pop() {
        visitor(&path, node);
        waiting.extend(
            node.children
                .iter()
                .rev()
                .map(|(name, child)| (path.child(name), &**child)),
        );
    }
}

#[cfg(test)]
mod tests;
