//! Disks of domains: what the toolstack writes for them into xenstore, and how it waits for their back ends.
//!
//! Keys are those of Xen's block protocol (xen-abi-7, sections 7.2 and 7.5). A disk is served by `oxblk`, or by the kernel's own back end
//! where its specification says `backendtype=kernel` (xl's `phy` is the same).

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxen_config::DiskSpec;
use oxen_config::disk::{DiskBackend, DiskFormat, DiskProtocol};

use crate::failure::{Context, Failure};
use crate::host::{Access, Change, Store, Toolstack};
use crate::{names, tree};

/// How long a back end may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Where the kernel shows its back end for disks, once that is loaded.
const KERNEL_DRIVER: &str = "/sys/bus/xen-backend/drivers/vbd";

/// Kinds of back ends for disks, by their names in xenstore and in specifications.
pub const KINDS: [(&str, &str); 2] = [("oxblk", "ox"), ("vbd", "kernel")];

/// States of xenbus that are waited for.
const INIT_WAIT: &str = "2";
const CONNECTED: &str = "4";
const CLOSING: &str = "5";
const CLOSED: &str = "6";

/// A disk that can be served.
#[derive(Debug)]
pub struct Disk<'a> {
    spec: &'a DiskSpec,
    number: u32,
    kind: &'static str,
    target: PathBuf,
    /// Of the block device that it is.
    device: Option<u64>,
}

impl<'a> Disk<'a> {
    /// Checks that the disk can be had.
    pub fn check(spec: &'a DiskSpec) -> Result<Self, Failure> {
        let vdev = &spec.vdev;
        let unsupported =
            |what: &str| Failure::NotImplemented(format!("disk {vdev}: {what} is not supported"));
        let kind = match spec.backend_type {
            None | Some(DiskBackend::Ox) => "oxblk",
            Some(DiskBackend::Kernel | DiskBackend::Phy) => "vbd",
            Some(DiskBackend::Tap | DiskBackend::Qdisk | DiskBackend::Standalone) => {
                return Err(unsupported(
                    "another backendtype than ox and kernel (or phy, which is the same)",
                ));
            }
        };
        match spec.format {
            DiskFormat::Raw => {}
            DiskFormat::Empty => return Err(unsupported("a drive without a disc")),
            _ => {
                return Err(unsupported(
                    "a format other than raw (`qemu-img convert -O raw` makes one)",
                ));
            }
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
        let device = look(vdev, &target)?;
        if kind == "vbd" {
            if device.is_none() {
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
            kind,
            target,
            device,
        })
    }

    /// Where its back end is in xenstore.
    pub fn back(&self, domid: u16) -> String {
        back(self.kind, domid, self.number)
    }

    /// What makes both ends of it in xenstore.
    pub fn creation(&self, domid: u16) -> Vec<Change> {
        let spec = self.spec;
        let (front, back) = (front(domid, self.number), self.back(domid));
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
            ("direct-io-safe", flag(spec.direct_io_safe)),
        ];
        if let Some(device) = self.device.filter(|_| self.kind == "vbd") {
            // What a script would do for xl.
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            nodes.push(("physical-device", format!("{major:x}:{minor:x}")));
        }
        let kind = if self.device.is_some() { "phy" } else { "file" };
        nodes.push(("type", kind.to_owned()));
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

    /// Waits until its back end has said what it offers, or why it does not.
    pub fn wait(&self, host: &mut dyn Toolstack, domid: u16) -> Result<(), Failure> {
        let vdev = &self.spec.vdev;
        if offered(host, &self.back(domid))? {
            return Ok(());
        }
        let daemon = if self.kind == "vbd" {
            "see dmesg"
        } else {
            "is oxblk running? /var/log/xen/oxblk.log has what it says"
        };
        Err(Failure::TimedOut(format!(
            "disk {vdev}: its back end has not answered within {} s; {daemon}",
            PATIENCE.as_secs()
        )))
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

/// Where a disk's back end is in xenstore.
pub fn back(kind: &str, domid: u16, number: u32) -> String {
    format!("{}/{number}", tree::back_ends(kind, domid))
}

/// Where its front end is.
pub fn front(domid: u16, number: u32) -> String {
    format!("{}/device/vbd/{number}", names::path(domid))
}

/// Asks the guest to let go of a disk, and waits until it has.
pub fn close(host: &mut dyn Toolstack, back: &str) -> Result<bool, Failure> {
    let about = || format!("close {back}");
    let changes = [("online", "0"), ("state", CLOSING)]
        .map(|(name, value)| tree::rewrite(format!("{back}/{name}"), value.to_owned()));
    // One that is closed already stays so.
    let state = host.store()?.read(&format!("{back}/state"));
    let closed = state.context(about)?.as_deref() == Some(CLOSED);
    let changes = if closed { &changes[..1] } else { &changes[..] };
    host.store()?.apply(changes).context(about)?;
    Ok(wait_for(host, back, |state| state == CLOSED)?.is_some())
}

/// Waits until a back end has said what it offers. False: not in time.
///
/// # Errors
/// It has closed the device, and why.
pub fn offered(host: &mut dyn Toolstack, back: &str) -> Result<bool, Failure> {
    let offers = |state: &str| matches!(state, INIT_WAIT | CONNECTED);
    let closed = |state: &str| matches!(state, CLOSING | CLOSED);
    let Some(state) = wait_for(host, back, |state| offers(state) || closed(state))? else {
        return Ok(false);
    };
    if offers(&state) {
        return Ok(true);
    }
    let error = error(host.store()?, back).context(|| format!("look at {back}"))?;
    Err(Failure::Refused {
        action: format!("serve {back}"),
        error: error.unwrap_or_else(|| "its back end has closed it and says no reason".to_owned()),
    })
}

/// Why a back end does not serve a device, if it has said so: ours beside the device, Linux's where its xenbus puts errors.
pub fn error(store: &mut dyn Store, back: &str) -> io::Result<Option<String>> {
    match store.read(&format!("{back}/error"))? {
        None => store.read(&format!("{}/error", tree::kernel_error(back))),
        error => Ok(error),
    }
}

/// Waits for a back end's state, and returns it; `None`: not in time.
fn wait_for(
    host: &mut dyn Toolstack,
    back: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Option<String>, Failure> {
    let about = || format!("look at {back}");
    let mut waited = Duration::ZERO;
    loop {
        let state = host.store()?.read(&format!("{back}/state"));
        let state = state.context(about)?.unwrap_or_default();
        if wanted(&state) {
            return Ok(Some(state));
        }
        if waited >= PATIENCE {
            return Ok(None);
        }
        host.sleep(LOOK);
        waited += LOOK;
    }
}
