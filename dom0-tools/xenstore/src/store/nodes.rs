//! Requests on nodes, inside of transactions and outside, and the transactions' own.

use super::transaction::{Aspect, Operation, Right, Transaction, resolve};
use super::tree::{Node, QuotaExceeded, Tree};
use super::{Answer, Call, Change, ConnectionId, Outgoing, Store, arguments, ok};
use crate::path::NodePath;
use crate::permission::{Permission, Permissions};
use crate::wire::{Errno, PAYLOAD_MAX, strings};

impl Store {
    pub(super) fn read(&mut self, call: Call, payload: &[u8]) -> Answer {
        let path = only_path(call, payload)?;
        Ok(self.look(call, &path, Right::Read)?.value.to_vec())
    }

    pub(super) fn directory(&mut self, call: Call, payload: &[u8]) -> Answer {
        let path = only_path(call, payload)?;
        let names = self.names(call, &path)?.1;
        if names.len() > PAYLOAD_MAX {
            Err(Errno::TooBig)
        } else {
            Ok(names)
        }
    }

    /// A part of a long list of children, from a byte offset: the list's generation, then names; one more NUL ends the
    /// last part.
    pub(super) fn directory_part(&mut self, call: Call, payload: &[u8]) -> Answer {
        let [name, offset] = arguments(payload)?;
        let path = NodePath::parse(name, call.from.domain()).ok_or(Errno::Invalid)?;
        let offset: usize = decimal(offset)?;
        let (generation, names) = self.names(call, &path)?;
        let mut answer = format!("{generation}\0").into_bytes();
        let rest = names.get(offset..).unwrap_or_default();
        let room = PAYLOAD_MAX - answer.len() - 1;
        for name in rest.split_inclusive(|&byte| byte == 0) {
            if answer.len() + name.len() > PAYLOAD_MAX - 1 {
                break;
            }
            answer.extend_from_slice(name);
        }
        if rest.len() <= room {
            answer.push(0);
        }
        Ok(answer)
    }

    pub(super) fn get_permissions(&mut self, call: Call, payload: &[u8]) -> Answer {
        let [name] = arguments(payload)?;
        let path = NodePath::parse_or_special(name, call.from.domain()).ok_or(Errno::Invalid)?;
        let permissions = match self.special.get(&path) {
            Some(permissions) if permissions.allowed(call.subject).reads() => permissions.clone(),
            Some(_) => return Err(Errno::Access),
            None => self.look(call, &path, Right::Read)?.permissions.clone(),
        };
        Ok(permissions
            .entries()
            .flat_map(|entry| format!("{entry}\0").into_bytes())
            .collect())
    }

    pub(super) fn write(&mut self, call: Call, payload: &[u8], events: &mut Outgoing) -> Answer {
        let end = payload
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(Errno::Invalid)?;
        let (name, value) = payload.split_at(end);
        let (path, value) = (
            NodePath::parse(name, call.from.domain()).ok_or(Errno::Invalid)?,
            value[1..].to_vec(),
        );
        match self.look(call, &path, Right::Write).map(drop) {
            Err(error) if error != Errno::NotFound => Err(error),
            _ if !call.subject.is_privileged() && value.len() > self.quotas.value => {
                Err(Errno::NoSpace)
            }
            _ => self.perform(call, Operation::Write { path, value }, events),
        }
    }

    pub(super) fn make_directory(
        &mut self,
        call: Call,
        payload: &[u8],
        events: &mut Outgoing,
    ) -> Answer {
        let path = only_path(call, payload)?;
        match self.look(call, &path, Right::Write).map(drop) {
            Err(Errno::NotFound) => self.perform(call, Operation::Create { path }, events),
            Err(error) => Err(error),
            Ok(_) => ok(),
        }
    }

    pub(super) fn remove(&mut self, call: Call, payload: &[u8], events: &mut Outgoing) -> Answer {
        let path = only_path(call, payload)?;
        let Some(parent) = path.parent() else {
            return Err(Errno::Invalid);
        };
        match self.look(call, &path, Right::Write).map(drop) {
            // Gone already is as good, as long as its parent is there.
            Err(Errno::NotFound) if self.view(call)?.get(&parent).is_some() => ok(),
            Err(error) => Err(error),
            Ok(_) => self.perform(call, Operation::Remove { path }, events),
        }
    }

    pub(super) fn set_permissions(
        &mut self,
        call: Call,
        payload: &[u8],
        events: &mut Outgoing,
    ) -> Answer {
        let strings = strings(payload).ok_or(Errno::Invalid)?;
        let (name, entries) = strings.split_first().ok_or(Errno::Invalid)?;
        let path = NodePath::parse_or_special(name, call.from.domain()).ok_or(Errno::Invalid)?;
        let parse = |entry: &&[u8]| {
            std::str::from_utf8(entry)
                .ok()
                .and_then(|text| text.parse::<Permission>().ok())
        };
        let entries: Vec<Permission> = entries
            .iter()
            .map(parse)
            .collect::<Option<_>>()
            .ok_or(Errno::Invalid)?;
        let permissions = Permissions::try_from(entries).map_err(|_| Errno::Invalid)?;
        let privileged = call.subject.is_privileged();
        if !privileged && permissions.count() > self.quotas.permissions {
            return Err(Errno::NoSpace);
        }
        if path.is_special() {
            if !privileged {
                return Err(Errno::Access);
            }
            self.special.insert(path.clone(), permissions.clone());
            self.changes.push(Change::Special { path, permissions });
            return ok();
        }
        let owner = self.look(call, &path, Right::Own)?.permissions.owner();
        if !privileged && permissions.owner() != owner {
            return Err(Errno::NotPermitted);
        }
        self.perform(
            call,
            Operation::SetPermissions { path, permissions },
            events,
        )
    }

    pub(super) fn transaction_start(&mut self, call: Call) -> Answer {
        if call.transaction != 0 {
            return Err(Errno::Busy);
        }
        let (limit, snapshot) = (self.quotas.transactions, Transaction::new(&self.tree));
        let connection = self.connection(call.from)?;
        if !call.subject.is_privileged() && connection.transactions.len() >= limit {
            return Err(Errno::NoSpace);
        }
        let mut id = connection.last_transaction.wrapping_add(1);
        while id == 0 || connection.transactions.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        connection.last_transaction = id;
        connection.transactions.insert(id, snapshot);
        if let ConnectionId::Domain(domain) = call.from {
            self.changes.push(Change::TransactionBegan {
                domain,
                transaction: id,
            });
        }
        Ok(format!("{id}\0").into_bytes())
    }

    pub(super) fn transaction_end(
        &mut self,
        call: Call,
        payload: &[u8],
        events: &mut Outgoing,
    ) -> Answer {
        let commit = match payload {
            b"T\0" => true,
            b"F\0" => false,
            _ => return Err(Errno::Invalid),
        };
        let creator = self.creator(call);
        let transaction = self
            .connection(call.from)?
            .transactions
            .remove(&call.transaction)
            .ok_or(Errno::NotFound)?;
        if let ConnectionId::Domain(domain) = call.from {
            self.changes.push(Change::TransactionEnded {
                domain,
                transaction: call.transaction,
            });
        }
        if commit {
            let effects = transaction.commit(&mut self.tree, creator)?;
            self.publish(effects, events);
        }
        ok()
    }

    /// The nodes as the call sees them.
    fn view(&mut self, call: Call) -> Result<&Tree, Errno> {
        if call.transaction == 0 {
            return Ok(&self.tree);
        }
        let transactions = &self.connection(call.from)?.transactions;
        transactions
            .get(&call.transaction)
            .map(Transaction::tree)
            .ok_or(Errno::NotFound)
    }

    /// The node, if the caller has this right to it.
    fn look(&mut self, call: Call, path: &NodePath, right: Right) -> Result<&Node, Errno> {
        self.rely_on(call, path, Aspect::Content)?;
        resolve(self.view(call)?, path, call.subject, right)
    }

    /// Names of the children, each with its NUL, and the generation of this list.
    fn names(&mut self, call: Call, path: &NodePath) -> Result<(u64, Vec<u8>), Errno> {
        self.rely_on(call, path, Aspect::Listing)?;
        let node = self.look(call, path, Right::Read)?;
        let names = node
            .children
            .keys()
            .flat_map(|name| name.bytes().chain([0]))
            .collect();
        Ok((node.listing, names))
    }

    fn rely_on(&mut self, call: Call, path: &NodePath, aspect: Aspect) -> Result<(), Errno> {
        if call.transaction == 0 {
            return Ok(());
        }
        let limit = if call.subject.is_privileged() {
            usize::MAX
        } else {
            self.quotas.transaction_size
        };
        let transactions = &mut self.connection(call.from)?.transactions;
        let transaction = transactions
            .get_mut(&call.transaction)
            .ok_or(Errno::NotFound)?;
        if transaction.size() >= limit {
            return Err(Errno::NoSpace);
        }
        transaction.rely_on(path, aspect);
        Ok(())
    }

    /// Does what was found to be allowed, now or in the transaction.
    fn perform(&mut self, call: Call, operation: Operation, events: &mut Outgoing) -> Answer {
        let creator = self.creator(call);
        if call.transaction == 0 {
            let effects = operation
                .apply(&mut self.tree, creator)
                .map_err(|QuotaExceeded| Errno::NoSpace)?;
            self.publish(effects, events);
        } else {
            let transactions = &mut self.connection(call.from)?.transactions;
            let transaction = transactions
                .get_mut(&call.transaction)
                .ok_or(Errno::NotFound)?;
            transaction
                .perform(operation, creator)
                .map_err(|QuotaExceeded| Errno::NoSpace)?;
        }
        ok()
    }
}

fn only_path(call: Call, payload: &[u8]) -> Result<NodePath, Errno> {
    let [name] = arguments(payload)?;
    NodePath::parse(name, call.from.domain()).ok_or(Errno::Invalid)
}

/// A decimal number.
pub(super) fn decimal<T: std::str::FromStr>(text: &[u8]) -> Result<T, Errno> {
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or(Errno::Invalid)
}
