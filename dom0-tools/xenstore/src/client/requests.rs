//! Requests on nodes, the same in and outside of a transaction; and those that only a connection has.

use super::{Client, Error, Result, text};
use crate::permission::{Permission, Permissions};
use crate::wire::{Errno, Kind, strings};

/// What can be asked in and outside of a transaction.
pub trait Requests {
    /// Sends a request and waits for its reply. `name` is for error messages.
    fn ask(&mut self, kind: Kind, name: &'static str, payload: Vec<u8>) -> Result<Vec<u8>>;

    /// A node's value.
    fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(Kind::Read, "read", terminated(&[path]))
    }

    /// A node's value as text, `None` if there is no such node.
    fn read_text(&mut self, path: &str) -> Result<Option<String>> {
        match self.read(path) {
            Ok(value) => Ok(Some(text(&value))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value; creates it and what is missing above it.
    fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let mut payload = terminated(&[path]);
        payload.extend_from_slice(value.as_ref());
        self.ask(Kind::Write, "write", payload).map(drop)
    }

    /// Makes sure that a node exists.
    fn make_directory(&mut self, path: &str) -> Result<()> {
        self.ask(Kind::MakeDirectory, "mkdir", terminated(&[path]))
            .map(drop)
    }

    /// Removes a node and all below it. True if it, or at least its parent, was there.
    fn remove(&mut self, path: &str) -> Result<bool> {
        match self.ask(Kind::Remove, "rm", terminated(&[path])) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names of a node's children.
    fn directory(&mut self, path: &str) -> Result<Vec<String>> {
        match self.ask(Kind::Directory, "directory", terminated(&[path])) {
            Ok(names) => Ok(strings(&names)
                .unwrap_or_default()
                .into_iter()
                .map(text)
                .collect()),
            Err(error) if error.errno() == Some(Errno::TooBig) => long_directory(self, path),
            Err(error) => Err(error),
        }
    }

    /// A node's permissions.
    fn permissions(&mut self, path: &str) -> Result<Permissions> {
        let answer = self.ask(Kind::GetPermissions, "permissions of", terminated(&[path]))?;
        let entries = strings(&answer).unwrap_or_default();
        let parsed = entries
            .into_iter()
            .map(|entry| text(entry).parse::<Permission>());
        let entries = parsed
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(Error::Protocol)?;
        Permissions::try_from(entries).map_err(|error| Error::Protocol(error.to_owned()))
    }

    /// Sets a node's permissions, written as `n0`, `r5` and so on, the owner's first.
    fn set_permissions(&mut self, path: &str, entries: &[&str]) -> Result<()> {
        let strings: Vec<&str> = std::iter::once(path)
            .chain(entries.iter().copied())
            .collect();
        self.ask(
            Kind::SetPermissions,
            "set permissions of",
            terminated(&strings),
        )
        .map(drop)
    }
}

impl Requests for Client {
    fn ask(&mut self, kind: Kind, name: &'static str, payload: Vec<u8>) -> Result<Vec<u8>> {
        self.exchange(kind, 0, name, payload)
    }
}

impl Client {
    /// Registers a watch on `path` and all below it. Its first event comes at once.
    pub fn watch(&mut self, path: &str, token: &str) -> Result<()> {
        self.ask(Kind::Watch, "watch", terminated(&[path, token]))
            .map(drop)
    }

    /// Removes a watch. Events of it that are here already stay.
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<()> {
        self.ask(Kind::Unwatch, "unwatch", terminated(&[path, token]))
            .map(drop)
    }

    /// Tells the daemon of a domain: its ring is in frame `gfn` of its memory and has the event channel `port`.
    pub fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<()> {
        let numbers = [domain.to_string(), gfn.to_string(), port.to_string()];
        self.ask(Kind::Introduce, "introduce domain", terminated(&numbers))
            .map(drop)
    }

    /// Makes the daemon forget a domain.
    pub fn release(&mut self, domain: u16) -> Result<()> {
        self.ask(
            Kind::Release,
            "release domain",
            terminated(&[domain.to_string()]),
        )
        .map(drop)
    }

    /// Tells the daemon that a domain which had shut down runs again.
    pub fn resume(&mut self, domain: u16) -> Result<()> {
        self.ask(
            Kind::Resume,
            "resume domain",
            terminated(&[domain.to_string()]),
        )
        .map(drop)
    }

    /// Gives `domain` the rights that `target` has.
    pub fn set_target(&mut self, domain: u16, target: u16) -> Result<()> {
        self.ask(
            Kind::SetTarget,
            "set target of domain",
            terminated(&[domain.to_string(), target.to_string()]),
        )
        .map(drop)
    }

    /// Whether the daemon knows a domain.
    pub fn is_introduced(&mut self, domain: u16) -> Result<bool> {
        let answer = self.ask(
            Kind::IsDomainIntroduced,
            "is introduced: domain",
            terminated(&[domain.to_string()]),
        )?;
        Ok(answer.first() == Some(&b'T'))
    }

    /// The path below which a domain's own nodes are.
    pub fn domain_path(&mut self, domain: u16) -> Result<String> {
        let answer = self.ask(
            Kind::GetDomainPath,
            "path of domain",
            terminated(&[domain.to_string()]),
        )?;
        Ok(text(
            strings(&answer)
                .unwrap_or_default()
                .first()
                .unwrap_or(&&b""[..]),
        ))
    }

    /// A command to the daemon itself; `help` lists them.
    pub fn control(&mut self, words: &[&str]) -> Result<String> {
        let answer = self.ask(Kind::Control, "control", terminated(words))?;
        Ok(text(answer.strip_suffix(b"\0").unwrap_or(&answer)))
    }
}

/// A list of children that does not fit in one message, in parts; anew if it changes meanwhile.
fn long_directory(client: &mut (impl Requests + ?Sized), path: &str) -> Result<Vec<String>> {
    let (mut names, mut generation) = (vec![], None);
    loop {
        let offset = names.len().to_string();
        let part = client.ask(
            Kind::DirectoryPart,
            "directory",
            terminated(&[path, &offset]),
        )?;
        let end = part.iter().position(|&byte| byte == 0);
        let end = end.ok_or_else(|| {
            Error::Protocol("a part of a directory without generation".to_owned())
        })?;
        let (current, rest) = (
            part.get(..end).map(<[u8]>::to_vec),
            part.get(end + 1..).unwrap_or_default(),
        );
        if generation.is_some() && generation != current {
            (names, generation) = (vec![], None);
            continue;
        }
        generation = current;
        // An empty string ends the whole list.
        if let Some(last) = rest
            .strip_suffix(b"\0")
            .filter(|last| last.is_empty() || last.ends_with(b"\0"))
        {
            names.extend_from_slice(last);
            return Ok(strings(&names)
                .unwrap_or_default()
                .into_iter()
                .map(text)
                .collect());
        }
        if rest.is_empty() {
            return Err(Error::Protocol(
                "an empty part of a directory that has not ended".to_owned(),
            ));
        }
        names.extend_from_slice(rest);
    }
}

/// Strings with their NULs.
fn terminated(strings: &[impl AsRef<str>]) -> Vec<u8> {
    strings
        .iter()
        .flat_map(|string| string.as_ref().bytes().chain([0]))
        .collect()
}
