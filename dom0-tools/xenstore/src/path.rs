//! Names of nodes: absolute, checked, and of one spelling each.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::{ABSOLUTE_PATH_MAX, RELATIVE_PATH_MAX};

/// Names that can be watched and are no nodes.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// See [`INTRODUCE_DOMAIN`].
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// A checked absolute path (`/`, `/a/b`) or one of the two special names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodePath(String);

/// The directory below which a domain's relative paths are.
pub fn domain_directory(domain: u16) -> String {
    format!("/local/domain/{domain}")
}

impl NodePath {
    /// The root node.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The path that `domain` means by `name`; `None` if the name is malformed or too long.
    pub fn parse(name: &[u8], domain: u16) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let absolute = name.starts_with('/');
        let limit = if absolute {
            ABSOLUTE_PATH_MAX
        } else {
            RELATIVE_PATH_MAX
        };
        if name.is_empty() || name.len() >= limit || !name.bytes().all(is_allowed) {
            return None;
        }
        if name.contains("//") || (name.len() > 1 && name.ends_with('/')) || name.starts_with('@') {
            return None;
        }
        Some(Self(if absolute {
            name.to_owned()
        } else {
            format!("{}/{name}", domain_directory(domain))
        }))
    }

    /// Like [`Self::parse`], and the special names too: for watches and permissions.
    pub fn parse_or_special(name: &[u8], domain: u16) -> Option<Self> {
        [INTRODUCE_DOMAIN, RELEASE_DOMAIN]
            .into_iter()
            .find(|special| special.as_bytes() == name)
            .map(Self::special)
            .or_else(|| Self::parse(name, domain))
    }

    /// One of the two special names.
    pub(crate) fn special(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Whether this is a special name.
    pub fn is_special(&self) -> bool {
        self.0.starts_with('@')
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names from the root down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The node above, `None` above the root and for special names.
    pub fn parent(&self) -> Option<Self> {
        let (parent, name) = self.0.rsplit_once('/')?;
        match (parent, name) {
            ("", "") => None,
            ("", _) => Some(Self::root()),
            _ => Some(Self(parent.to_owned())),
        }
    }

    /// The path itself, its parent and so on to the root; for a special name only itself. No copies: a domain chooses how
    /// long its paths are.
    pub fn upwards(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |path| match path.rsplit_once('/')? {
            ("", "") => None,
            ("", _) => Some("/"),
            (parent, _) => Some(parent),
        })
    }

    /// Last name of the path; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The child called `name`, which must be a valid name.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(if self.is_root() {
            format!("/{name}")
        } else {
            format!("{}/{name}", self.0)
        })
    }

    /// What `domain` calls this path when it speaks in relative paths.
    pub fn relative_to(&self, domain: u16) -> &str {
        let directory = domain_directory(domain);
        self.0
            .strip_prefix(&directory)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&self.0)
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@')
}

impl Borrow<str> for NodePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let absolute = text.starts_with('/') || text.starts_with('@');
        let path = absolute
            .then(|| Self::parse_or_special(text.as_bytes(), 0))
            .flatten();
        path.ok_or_else(|| format!("`{text}` is no absolute path of a node"))
    }
}

impl From<NodePath> for String {
    fn from(path: NodePath) -> String {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<String> {
        NodePath::parse(name.as_bytes(), 7).map(String::from)
    }

    #[test]
    fn relative_names_are_below_the_domain() {
        assert_eq!(
            parse("device/vbd").as_deref(),
            Some("/local/domain/7/device/vbd")
        );
        assert_eq!(parse("/a").as_deref(), Some("/a"));
        let path = NodePath::parse(b"device", 7).expect("a good path");
        assert_eq!(path.relative_to(7), "device");
        assert_eq!(path.relative_to(8), "/local/domain/7/device");
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in [
            "",
            "//",
            "/a//b",
            "/a/",
            "a/",
            "/a b",
            "/a.b",
            "/ä",
            "@foo",
            "@releaseDomain",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(3071))), None);
        assert!(parse(&format!("/{}", "a".repeat(3070))).is_some());
        assert_eq!(parse(&"a".repeat(2048)), None);
        assert!(parse(&"a".repeat(2047)).is_some());
        assert!(NodePath::parse_or_special(b"@releaseDomain", 1).is_some());
        assert!(NodePath::parse_or_special(b"@other", 1).is_none());
    }

    #[test]
    fn parents_lead_to_the_root() {
        let path = NodePath::parse(b"/a/b", 0).expect("a good path");
        assert_eq!(path.name(), "b");
        let parent = path.parent().expect("/a");
        assert_eq!(parent.as_str(), "/a");
        assert_eq!(parent.parent(), Some(NodePath::root()));
        assert_eq!(NodePath::root().parent(), None);
        assert_eq!(path.upwards().collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        let special = NodePath::special(RELEASE_DOMAIN);
        assert_eq!(special.upwards().collect::<Vec<_>>(), [RELEASE_DOMAIN]);
        assert_eq!(NodePath::root().child("x").as_str(), "/x");
    }
}
