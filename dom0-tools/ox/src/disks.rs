//! Disks of domains: what the toolstack writes for them into xenstore.
//!
//! Keys are those of Xen's block protocol (xen-abi-7, sections 7.2 and 7.5). A disk is served by `oxblk`, or by the kernel's own back end
//! where its specification says `backendtype=kernel` (xl's `phy` is the same).

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oxen_config::DiskSpec;
use oxen_config::disk::{DiskBackend, DiskFormat, DiskProtocol};

use crate::devices::{DISKS, Device, Server};
use crate::failure::Failure;
use crate::host::{Access, Change, Toolstack};
use crate::{names, tree};

/// Where the kernel shows its back end for disks, once that is loaded.
const KERNEL_DRIVER: &str = "/sys/bus/xen-backend/drivers/vbd";

/// Makes a disk's target a whole path: its domain's next life begins in another directory.
///
/// # Errors
/// The directory is not there any more, or its name is no text.
pub fn locate(spec: &mut DiskSpec) -> Result<(), Failure> {
    let Some(target) = spec.target.as_mut().filter(|target| !target.is_empty()) else {
        return Ok(());
    };
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::ConfigUse(format!("disk {}: {target}: {why}", spec.vdev))
    };
    let whole = std::path::absolute(&*target).map_err(|error| wrong(&error))?;
    let whole = whole.into_os_string().into_string();
    *target = whole.map_err(|_| wrong(&"its directory's name is not UTF-8"))?;
    Ok(())
}

/// A disk that can be served.
#[derive(Debug)]
pub struct Disk<'a> {
    spec: &'a DiskSpec,
    number: u32,
    server: Server,
    target: PathBuf,
    /// Number of the block device that it is.
    block_device: Option<u64>,
}

impl<'a> Disk<'a> {
    /// Checks that the disk can be had.
    pub fn check(spec: &'a DiskSpec) -> Result<Self, Failure> {
        let vdev = &spec.vdev;
        let unsupported =
            |what: &str| Failure::NotImplemented(format!("disk {vdev}: {what} is not supported"));
        let server = match spec.backend_type {
            None | Some(DiskBackend::Ox) => Server::Ox,
            Some(DiskBackend::Kernel | DiskBackend::Phy) => Server::Kernel,
            Some(DiskBackend::Tap | DiskBackend::Qdisk | DiskBackend::Standalone) => {
                return Err(unsupported(
                    "another backendtype than ox and kernel (or phy, which is the same)",
                ));
            }
        };
        match spec.format {
            DiskFormat::Raw => {}
            DiskFormat::Qcow2 if server == Server::Ox => {}
            DiskFormat::Qcow2 => {
                return Err(unsupported("format=qcow2 with the kernel's back end"));
            }
            DiskFormat::Empty => return Err(unsupported("a drive without a disc")),
            _ => {
                return Err(unsupported(
                    "a format other than raw and qcow2 (`qemu-img convert -O qcow2` makes one)",
                ));
            }
        }
        if server == Server::Kernel && spec.persistent.is_some() {
            return Err(unsupported(
                "persistent with the kernel's back end (its module has a parameter for all disks: `modprobe xen-blkback feature_persistent=0`)",
            ));
        }
        if spec.protocol != DiskProtocol::Xen {
            return Err(unsupported("specification=virtio"));
        }
        if spec.script.is_some() {
            return Err(unsupported("script="));
        }
        if let Some(domain) = &spec.backend
            && !matches!(domain.as_str(), "0" | names::CONTROL_DOMAIN)
        {
            return Err(unsupported("a back end in another domain than 0"));
        }
        let target = spec.target.as_deref().unwrap_or_default();
        let target = std::path::absolute(target)
            .map_err(|error| Failure::ConfigUse(format!("disk {vdev}: {target}: {error}")))?;
        let block_device = look(vdev, &target)?;
        if server == Server::Kernel {
            if block_device.is_none() {
                return Err(Failure::ConfigUse(format!(
                    "disk {vdev}: {} is a file, and the kernel's back end serves block devices only; `losetup` makes one of it",
                    target.display()
                )));
            }
            if !Path::new(KERNEL_DRIVER).exists() {
                return Err(Failure::ConfigUse(format!(
                    "disk {vdev}: the kernel's back end is not loaded; `modprobe xen-blkback` loads it"
                )));
            }
        }
        Ok(Self {
            spec,
            // The specification was read, so it has one.
            number: spec.number().unwrap_or_default(),
            server,
            target,
            block_device,
        })
    }

    /// Where it is in xenstore.
    pub fn device(&self, domid: u16) -> Device {
        DISKS.device(domid, self.number, self.server)
    }

    /// What makes both ends of it in xenstore.
    pub fn creation(&self, domid: u16) -> Vec<Change> {
        let spec = self.spec;
        let Device { front, back, .. } = self.device(domid);
        let device_type = if spec.cdrom { "cdrom" } else { "disk" };
        let access = Access::GuestReads(domid);
        let mut changes = vec![
            tree::write(back.clone(), String::new(), access),
            tree::write(front.clone(), String::new(), Access::GuestOwns(domid)),
        ];
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        let mut nodes = vec![
            ("frontend", front.clone()),
            ("frontend-id", domid.to_string()),
            ("online", flag(true)),
            ("removable", flag(spec.cdrom)),
            ("bootable", flag(true)),
            ("dev", spec.vdev.clone()),
            ("mode", if spec.read_only { "r" } else { "w" }.to_owned()),
            ("device-type", device_type.to_owned()),
            (
                "discard-enable",
                flag(spec.discard.unwrap_or(!spec.read_only)),
            ),
            ("persistent-enable", flag(spec.persistent.unwrap_or(true))),
            ("direct-io-safe", flag(spec.direct_io_safe)),
        ];
        if let Some(device) = self.block_device.filter(|_| self.server == Server::Kernel) {
            // What a script would do for xl.
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            nodes.push(("physical-device", format!("{major:x}:{minor:x}")));
        }
        let kind = if self.block_device.is_some() {
            "phy"
        } else {
            "file"
        };
        nodes.push(("type", kind.to_owned()));
        if spec.format == DiskFormat::Qcow2 {
            nodes.push(("format", "qcow2".to_owned()));
        }
        nodes.push(("state", "1".to_owned()));
        changes.extend(
            (nodes.into_iter())
                .map(|(name, value)| tree::write(format!("{back}/{name}"), value, access)),
        );
        // Where it is on this machine is nothing to the guest.
        let target = self.target.display().to_string();
        changes.push(tree::write(
            format!("{back}/params"),
            target,
            Access::HostOnly,
        ));
        let trusted = spec.trusted.map(|trusted| ("trusted", flag(trusted)));
        let nodes = [
            ("backend", back.clone()),
            ("backend-id", "0".to_owned()),
            ("virtual-device", self.number.to_string()),
            ("device-type", device_type.to_owned()),
            ("state", "1".to_owned()),
        ];
        changes.extend((nodes.into_iter().chain(trusted)).map(|(name, value)| {
            tree::write(format!("{front}/{name}"), value, Access::GuestOwns(domid))
        }));
        changes
    }

    /// What its user calls it.
    pub fn name(&self) -> String {
        format!("disk {}", self.spec.vdev)
    }

    /// Waits until its back end has said what it offers, or why it does not.
    pub fn wait(&self, host: &mut dyn Toolstack, domid: u16) -> Result<(), Failure> {
        DISKS.wait(&self.device(domid), &self.name(), host)
    }
}

/// The number of the block device that a target is; `None` for a file.
fn look(vdev: &str, target: &Path) -> Result<Option<u64>, Failure> {
    let wrong =
        |what: &str| Failure::ConfigUse(format!("disk {vdev}: {}: {what}", target.display()));
    let metadata: Metadata =
        std::fs::metadata(target).map_err(|error| wrong(&error.to_string()))?;
    if metadata.file_type().is_block_device() {
        return Ok(Some(metadata.rdev()));
    }
    if !metadata.is_file() {
        return Err(wrong("neither a file nor a block device"));
    }
    Ok(None)
}

/// Checks all disks of a configuration.
pub fn check_all(specs: &[DiskSpec]) -> Result<Vec<Disk<'_>>, Failure> {
    let disks: Vec<Disk<'_>> = specs.iter().map(Disk::check).collect::<Result<_, _>>()?;
    for (nth, disk) in disks.iter().enumerate() {
        if disks[..nth].iter().any(|other| other.number == disk.number) {
            return Err(Failure::ConfigUse(format!(
                "disk {}: the guest has another disk there; give each a vdev of its own",
                disk.spec.vdev
            )));
        }
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_from_any_directory() {
        let here = std::env::current_dir().expect("a directory");
        for (target, whole) in [
            ("web.img", here.join("web.img")),
            ("/srv/web.img", PathBuf::from("/srv/web.img")),
        ] {
            let mut spec: DiskSpec = format!("{target},raw,xvda,w").parse().expect("a disk");
            locate(&mut spec).expect("a directory");
            assert_eq!(spec.target.as_deref().map(Path::new), Some(whole.as_path()));
        }
    }
}
