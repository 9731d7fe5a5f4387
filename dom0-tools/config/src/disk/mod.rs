//! Disks of a domain, in the syntax of xl-disk-configuration(5): `/dev/vg/web1,raw,xvda,rw` or `format=raw,vdev=xvda,target=/dev/vg/web1`.

mod error;
mod parse;
mod vdev;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use error::DiskError;
pub use vdev::number as vdev_number;

/// Format of a disk's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The sectors one after another.
    #[default]
    Raw,
    /// QEMU's first format.
    Qcow,
    /// QEMU's second format.
    Qcow2,
    /// Virtual PC's format.
    Vhd,
    /// QEMU's enhanced disk.
    Qed,
    /// A CD-ROM drive without a disc.
    Empty,
}

impl DiskFormat {
    const NAMES: [(&'static str, Self); 6] = [
        ("raw", Self::Raw),
        ("qcow", Self::Qcow),
        ("qcow2", Self::Qcow2),
        ("vhd", Self::Vhd),
        ("qed", Self::Qed),
        ("empty", Self::Empty),
    ];
}

/// Which program serves a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBackend {
    /// The kernel's block back-end.
    Phy,
    /// The user-space tap.
    Tap,
    /// QEMU.
    Qdisk,
    /// A program of its own.
    Standalone,
    /// Oxen's own block back-end, `oxblk`; xl does not know it.
    Ox,
    /// Another name of `phy`; xl does not know it.
    Kernel,
}

impl DiskBackend {
    const NAMES: [(&'static str, Self); 6] = [
        ("ox", Self::Ox),
        ("kernel", Self::Kernel),
        ("phy", Self::Phy),
        ("tap", Self::Tap),
        ("qdisk", Self::Qdisk),
        ("standalone", Self::Standalone),
    ];
}

/// The protocol between guest and back-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskProtocol {
    /// Xen's block protocol.
    #[default]
    Xen,
    /// virtio-blk.
    Virtio,
}

impl DiskProtocol {
    const NAMES: [(&'static str, Self); 2] = [("xen", Self::Xen), ("virtio", Self::Virtio)];
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Device or file; none for an empty CD-ROM drive.
    pub target: Option<String>,
    /// Format of the image.
    pub format: DiskFormat,
    /// The device as the guest sees it, `xvda`.
    pub vdev: String,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Whether the guest sees a CD-ROM drive.
    pub cdrom: bool,
    /// The domain that serves the disk; domain 0 if not given.
    pub backend: Option<String>,
    /// Which program serves it.
    pub backend_type: Option<DiskBackend>,
    /// A script that makes a device of the target.
    pub script: Option<String>,
    /// Whether the back-end may use `O_DIRECT` though its target may be on a network.
    pub direct_io_safe: bool,
    /// Whether discard requests are offered, if said.
    pub discard: Option<bool>,
    /// Whether the back-end keeps pages mapped whose grants the guest keeps, if said; xl does not know it.
    pub persistent: Option<bool>,
    /// Whether the guest shall trust the back-end, if said.
    pub trusted: Option<bool>,
    /// The protocol.
    pub protocol: DiskProtocol,
}

impl DiskSpec {
    /// The disk's number in the guest.
    pub fn number(&self) -> Option<u32> {
        vdev_number(&self.vdev)
    }
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names
        .iter()
        .find(|(_, named)| named == value)
        .map_or("", |(name, _)| name)
}

impl fmt::Display for DiskSpec {
    /// The disk as named parameters, the target last because it takes the rest of the text.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "ro" } else { "rw" };
        let format = name_of(&DiskFormat::NAMES, &self.format);
        write!(out, "format={format},vdev={},access={access}", self.vdev)?;
        if self.cdrom {
            out.write_str(",devtype=cdrom")?;
        }
        if let Some(backend) = &self.backend {
            write!(out, ",backend={backend}")?;
        }
        if let Some(kind) = &self.backend_type {
            write!(out, ",backendtype={}", name_of(&DiskBackend::NAMES, kind))?;
        }
        if let Some(script) = &self.script {
            write!(out, ",script={script}")?;
        }
        if self.protocol != DiskProtocol::Xen {
            let protocol = name_of(&DiskProtocol::NAMES, &self.protocol);
            write!(out, ",specification={protocol}")?;
        }
        for (flag, set, unset) in [
            (self.direct_io_safe.then_some(true), "direct-io-safe", ""),
            (self.discard, "discard", "no-discard"),
            (self.persistent, "persistent", "no-persistent"),
            (self.trusted, "trusted", "untrusted"),
        ] {
            if let Some(flag) = flag {
                write!(out, ",{}", if flag { set } else { unset })?;
            }
        }
        match &self.target {
            Some(target) => write!(out, ",target={target}"),
            None => Ok(()),
        }
    }
}
