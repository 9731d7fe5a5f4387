//! Who may read, write and own a node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What one entry of a permission list allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: read.
    Read,
    /// `w`: write.
    Write,
    /// `b`: both.
    Both,
}

impl Access {
    /// Whether it includes reading.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether it includes writing.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry, written as a letter and a decimal domain id: `r5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission {
    /// What it allows.
    pub access: Access,
    /// To whom.
    pub domain: u16,
}

impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is no permission: write n, r, w or b and a domain id, such as r5");
        let mut letters = text.chars();
        let access = match letters.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(bad()),
        };
        let digits = letters.as_str();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self {
            access,
            domain: digits.parse().map_err(|_| bad())?,
        })
    }
}

impl TryFrom<String> for Permission {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> String {
        permission.to_string()
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain)
    }
}

/// A node's list. Its first entry names the owner, who may do everything, and what everybody not listed may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Permission>", into = "Vec<Permission>")]
pub struct Permissions {
    first: Permission,
    others: Vec<Permission>,
}

impl Permissions {
    /// Owned by `domain`, closed to everybody else.
    pub fn private(domain: u16) -> Self {
        Self {
            first: Permission {
                access: Access::None,
                domain,
            },
            others: vec![],
        }
    }

    /// The owner.
    pub fn owner(&self) -> u16 {
        self.first.domain
    }

    /// The same list with another owner.
    #[must_use]
    pub fn owned_by(&self, domain: u16) -> Self {
        Self {
            first: Permission {
                domain,
                ..self.first
            },
            others: self.others.clone(),
        }
    }

    /// All entries, the owner's first.
    pub fn entries(&self) -> impl Iterator<Item = Permission> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Number of entries.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Whether an entry beyond the first names `domain`.
    pub(crate) fn mentions(&self, domain: u16) -> bool {
        self.others.iter().any(|entry| entry.domain == domain)
    }

    /// The list without the entries for `domain`, which keeps what it owns.
    #[must_use]
    pub(crate) fn without(&self, domain: u16) -> Self {
        let others = self
            .others
            .iter()
            .copied()
            .filter(|entry| entry.domain != domain)
            .collect();
        Self {
            first: self.first,
            others,
        }
    }

    /// What `subject` may do.
    pub fn allowed(&self, subject: Subject) -> Access {
        if subject.is_privileged() || self.is_owner(subject) {
            return Access::Both;
        }
        self.others
            .iter()
            .find(|entry| subject.is(entry.domain))
            .map_or(self.first.access, |entry| entry.access)
    }

    /// Whether `subject` counts as the owner.
    pub fn is_owner(&self, subject: Subject) -> bool {
        subject.is_privileged() || subject.is(self.owner())
    }
}

impl TryFrom<Vec<Permission>> for Permissions {
    type Error = &'static str;

    fn try_from(entries: Vec<Permission>) -> Result<Self, Self::Error> {
        let (&first, others) = entries
            .split_first()
            .ok_or("a list of permissions needs at least the owner's entry")?;
        Ok(Self {
            first,
            others: others.to_vec(),
        })
    }
}

impl From<Permissions> for Vec<Permission> {
    fn from(permissions: Permissions) -> Self {
        permissions.entries().collect()
    }
}

/// In whose name a request is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The calling domain.
    pub domain: u16,
    /// The domain whose rights it has besides its own (SET_TARGET).
    pub target: Option<u16>,
}

impl Subject {
    /// dom0 may do everything.
    pub fn is_privileged(self) -> bool {
        self.domain == 0
    }

    fn is(self, domain: u16) -> bool {
        self.domain == domain || self.target == Some(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Permissions {
        let entries: Vec<Permission> = text
            .split(' ')
            .map(|entry| entry.parse().expect("a permission"))
            .collect();
        Permissions::try_from(entries).expect("not empty")
    }

    fn allowed(text: &str, domain: u16) -> Access {
        list(text).allowed(Subject {
            domain,
            target: None,
        })
    }

    #[test]
    fn owner_and_dom0_may_everything_others_what_is_listed() {
        assert_eq!(allowed("n5 r6", 5), Access::Both);
        assert_eq!(allowed("n5 r6", 0), Access::Both);
        assert_eq!(allowed("n5 r6", 6), Access::Read);
        assert_eq!(allowed("n5 r6", 7), Access::None);
        assert_eq!(allowed("b5 n6 w8", 6), Access::None);
        assert_eq!(allowed("b5 n6 w8", 8), Access::Write);
        assert_eq!(allowed("b5 n6", 9), Access::Both);
        let target = Subject {
            domain: 9,
            target: Some(5),
        };
        assert_eq!(list("n5").allowed(target), Access::Both);
    }

    #[test]
    fn malformed_entries_are_refused() {
        for text in ["", "r", "x1", "r-1", "r+1", "r70000", "r1 ", "1"] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
    }
}
