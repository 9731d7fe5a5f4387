//! Which device, and where it is in xenstore.

use std::fmt;

/// A device of a guest. Numbers are unique among the guest's devices of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The guest.
    pub domid: u16,
    /// Which of its devices: a disk's `vdev` number, a network card's place.
    pub number: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "domain {}, device {}", self.domid, self.number)
    }
}

impl DeviceId {
    /// Where the back end's nodes are.
    pub fn path(self, kind: &str) -> String {
        format!("{}/{}/{}", root(kind), self.domid, self.number)
    }

    /// The device that a changed node belongs to, if it is one's.
    pub fn of_path(kind: &str, path: &str) -> Option<Self> {
        let below = path.strip_prefix(&root(kind))?.strip_prefix('/')?;
        let mut parts = below.split('/');
        Some(Self {
            domid: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        })
    }
}

/// Where all devices of a kind are, by guest and number.
pub fn root(kind: &str) -> String {
    format!("/local/domain/0/backend/{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_their_paths() {
        let device = DeviceId {
            domid: 3,
            number: 51712,
        };
        let path = device.path("oxblk");
        assert_eq!(path, "/local/domain/0/backend/oxblk/3/51712");
        assert_eq!(DeviceId::of_path("oxblk", &path), Some(device));
        let node = format!("{path}/state");
        assert_eq!(DeviceId::of_path("oxblk", &node), Some(device));
        for other in [
            "/local/domain/0/backend/oxblk",
            "/local/domain/0/backend/oxblk/3",
            "/local/domain/0/backend/oxblk/x/1",
            "/local/domain/0/backend/oxblk/70000/1",
            "/local/domain/0/backend/vbd/3/51712",
        ] {
            assert_eq!(DeviceId::of_path("oxblk", other), None, "{other}");
        }
    }
}
