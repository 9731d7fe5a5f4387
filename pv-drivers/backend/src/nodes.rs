//! Reading below a path in xenstore.

use std::str::FromStr;

use crate::{Failure, Store};

/// Bytes of a value that is still a number or a name; a guest may write much longer ones.
const VALUE_MAX: usize = 256;

/// Both ends of a device.
pub struct Ends<'a> {
    store: &'a mut dyn Store,
    back: String,
    front: String,
}

impl<'a> Ends<'a> {
    /// By the paths of the ends.
    pub fn new(store: &'a mut dyn Store, back: &str, front: &str) -> Self {
        Self {
            store,
            back: back.to_owned(),
            front: front.to_owned(),
        }
    }

    /// Nodes of the back end, which this domain's tools have written.
    pub fn back(&mut self) -> Nodes<'_> {
        Nodes {
            store: self.store,
            base: &self.back,
            guests: false,
        }
    }

    /// Nodes of the front end, which the guest may write.
    pub fn front(&mut self) -> Nodes<'_> {
        Nodes {
            store: self.store,
            base: &self.front,
            guests: true,
        }
    }
}

/// One end's nodes. Errors name the node and what is wrong with it.
pub struct Nodes<'a> {
    store: &'a mut dyn Store,
    base: &'a str,
    /// Who is to blame for what is wrong.
    guests: bool,
}

impl Nodes<'_> {
    /// An error about these nodes, in the name of who wrote them.
    pub fn wrong(&self, what: impl Into<String>) -> Failure {
        if self.guests {
            Failure::Guest(what.into())
        } else {
            Failure::Host(what.into())
        }
    }

    /// A node's text, if it is there.
    ///
    /// # Errors
    /// It is too long to mean something, or xenstore is out of reach.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        let value = self.store.read(&format!("{}/{key}", self.base))?;
        match value {
            Some(value) if self.guests && value.len() > VALUE_MAX => {
                Err(self.wrong(format!("{key}: a value of {} bytes", value.len())))
            }
            value => Ok(value),
        }
    }

    /// A node's text.
    ///
    /// # Errors
    /// It is not there; else as for [`Nodes::text`].
    pub fn required_text(&mut self, key: &str) -> Result<String, Failure> {
        self.text(key)?
            .ok_or_else(|| self.wrong(format!("{key}: missing")))
    }

    /// A node's number, if it is there.
    ///
    /// # Errors
    /// It is no number, or one that is out of range for its type; else as for [`Nodes::text`].
    pub fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.wrong(format!("{key}: {text:?} is no number in range"))),
        }
    }

    /// A node's number.
    ///
    /// # Errors
    /// As for [`Nodes::number`], and if it is not there.
    pub fn required<T: FromStr>(&mut self, key: &str) -> Result<T, Failure> {
        self.number(key)?
            .ok_or_else(|| self.wrong(format!("{key}: missing")))
    }

    /// Whether a feature is announced: 1. What is not there is not.
    ///
    /// # Errors
    /// As for [`Nodes::number`].
    pub fn flag(&mut self, key: &str) -> Result<bool, Failure> {
        Ok(self.number::<u32>(key)?.is_some_and(|number| number != 0))
    }
}
