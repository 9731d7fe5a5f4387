//! What changed in the store, in a form that can be kept and applied again after a crash of the daemon.

use serde::{Deserialize, Serialize};

use crate::path::NodePath;
use crate::permission::Permissions;

/// One change. A store's [`dump`](super::Store::dump) is a list of these too, which makes it from nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Generations of nodes start above this one.
    Generation(u64),
    /// A node was created or changed; its parent exists.
    Node {
        /// Where.
        path: NodePath,
        /// Its value.
        #[serde(with = "latin1")]
        value: Vec<u8>,
        /// Its permissions.
        permissions: Permissions,
    },
    /// A node and all below it went.
    Removed {
        /// Where.
        path: NodePath,
    },
    /// A special name's permissions were set.
    Special {
        /// Its name.
        path: NodePath,
        /// Its permissions.
        permissions: Permissions,
    },
    /// A domain was introduced, or introduced again with another ring.
    Introduced {
        /// The domain.
        domain: u16,
        /// Frame of its ring page, in its own numbering.
        gfn: u64,
        /// Its event channel for the ring.
        port: u32,
    },
    /// A domain was released or is gone.
    Released {
        /// The domain.
        domain: u16,
    },
    /// Its end was (or is no longer) announced by `@releaseDomain`.
    Ended {
        /// The domain.
        domain: u16,
        /// Whether it is announced.
        ended: bool,
    },
    /// SET_TARGET.
    Target {
        /// Who got rights.
        domain: u16,
        /// Whose they are.
        target: u16,
    },
    /// A domain registered a watch through its ring.
    Watch {
        /// The domain.
        domain: u16,
        /// What it watches.
        path: NodePath,
        /// Whether events are to name relative paths.
        relative: bool,
        /// Its token.
        #[serde(with = "latin1")]
        token: Vec<u8>,
    },
    /// It removed one.
    Unwatch {
        /// The domain.
        domain: u16,
        /// What it watched.
        path: NodePath,
        /// Its token.
        #[serde(with = "latin1")]
        token: Vec<u8>,
    },
    /// It started a transaction.
    TransactionBegan {
        /// The domain.
        domain: u16,
        /// The transaction's id.
        transaction: u32,
    },
    /// It ended one.
    TransactionEnded {
        /// The domain.
        domain: u16,
        /// The transaction's id.
        transaction: u32,
    },
    /// All watches and transactions of its ring went.
    Reset {
        /// The domain.
        domain: u16,
    },
}

/// Bytes as text with one character a byte: readable where they are text, exact where they are not.
pub mod latin1 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes them.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(
            &bytes
                .iter()
                .map(|&byte| char::from(byte))
                .collect::<String>(),
        )
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.chars()
            .map(|letter| {
                u8::try_from(u32::from(letter))
                    .map_err(|_| D::Error::custom("a character beyond U+00FF"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_survives_json() {
        let change = Change::Node {
            path: NodePath::root(),
            value: (0..=255).collect(),
            permissions: Permissions::private(3),
        };
        let json = serde_json::to_string(&change).expect("it serialises");
        assert_eq!(
            serde_json::from_str::<Change>(&json).expect("it parses"),
            change
        );
        assert!(serde_json::from_str::<Change>(r#"{"removed":{"path":"a b"}}"#).is_err());
    }
}
