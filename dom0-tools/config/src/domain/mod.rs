//! The typed configuration of a domain.

mod build;
mod treat;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cpulist::CpuList;
use crate::disk::DiskSpec;
use crate::error::{ConfigError, Position, Source, Warning};
use crate::settings::{Setting, Settings};
use crate::vif::VifSpec;

pub use build::from_settings;

/// vCPUs that a domain can have.
pub const MAX_VCPUS: u32 = 32;

/// Weight of a domain that does not say one; a domain of twice the weight gets twice the time.
pub const DEFAULT_WEIGHT: u16 = 256;

/// Event channels of a domain that does not say how many: all that the 2-level ABI has, less port 0.
pub const DEFAULT_EVENT_CHANNELS: u32 = 1023;
/// Most event channels that a domain can be given: the FIFO ABI's, without port 0.
pub const MAX_EVENT_CHANNELS: u32 = (1 << 17) - 1;

/// A configuration and what was set in it to no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parsed {
    /// The configuration.
    pub config: DomainConfig,
    /// Settings that have no effect.
    pub warnings: Vec<Warning>,
    /// Where each key's value stands.
    #[serde(skip)]
    pub places: Places,
}

/// Where the values of keys stand, for errors that show up when the configuration is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places(BTreeMap<String, (Source, Position)>);

impl Places {
    pub(crate) fn of(settings: &Settings) -> Self {
        let place = |setting: &Setting| (setting.source_name.clone(), setting.item.position);
        Self(
            settings
                .iter()
                .map(|setting| (setting.key.clone(), place(setting)))
                .collect(),
        )
    }

    /// An error about a key's value, at its place; `None` if the key is not set.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Option<ConfigError> {
        let (source, position) = self.0.get(key)?;
        Some(ConfigError::new(source, *position, message).key(key))
    }
}

/// What is done when a domain stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Destroy it.
    Destroy,
    /// Destroy it and create it again.
    Restart,
    /// Give it another name and create it again.
    RenameRestart,
    /// Leave it as it is, to be looked at.
    Preserve,
    /// Write its memory to a file and destroy it.
    CoredumpDestroy,
    /// Write its memory to a file and create it again.
    CoredumpRestart,
    /// Reset what it has from the hypervisor and let it run on.
    SoftReset,
}

impl Action {
    /// Every action by the name that configurations use.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("destroy", Self::Destroy),
        ("restart", Self::Restart),
        ("rename-restart", Self::RenameRestart),
        ("preserve", Self::Preserve),
        ("coredump-destroy", Self::CoredumpDestroy),
        ("coredump-restart", Self::CoredumpRestart),
        ("soft-reset", Self::SoftReset),
    ];

    /// The name that configurations use.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, action)| *action == self);
        found.map_or("", |(name, _)| name)
    }
}

/// What is done for each reason of stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// The guest switched itself off.
    pub on_poweroff: Action,
    /// The guest asked for a reboot.
    pub on_reboot: Action,
    /// The guest crashed.
    pub on_crash: Action,
    /// The guest's watchdog ran out.
    pub on_watchdog: Action,
    /// The guest asked for a soft reset (kexec).
    pub on_soft_reset: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Self {
            on_poweroff: Action::Destroy,
            on_reboot: Action::Restart,
            on_crash: Action::Destroy,
            on_watchdog: Action::Destroy,
            on_soft_reset: Action::SoftReset,
        }
    }
}

/// On which host CPUs the vCPUs may or should run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Anywhere.
    #[default]
    Any,
    /// All vCPUs on the same CPUs.
    Domain(CpuList),
    /// Each vCPU on CPUs of its own; vCPUs beyond the list run anywhere.
    PerVcpu(Vec<CpuList>),
}

impl Affinity {
    /// The list for one vCPU; `None` is anywhere.
    pub fn of(&self, vcpu: u32) -> Option<&CpuList> {
        match self {
            Affinity::Any => None,
            Affinity::Domain(list) => Some(list),
            Affinity::PerVcpu(lists) => lists.get(vcpu as usize),
        }
    }
}

/// Everything that a configuration says about a PVH domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// Name, unique on the host.
    pub name: String,
    /// Identity; made up at creation when not given.
    pub uuid: Option<Uuid>,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initial RAM disk's file.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Memory at the start, in MiB.
    pub memory_mib: u64,
    /// Most memory that the domain can ever have, in MiB; not less than `memory_mib`.
    pub maxmem_mib: u64,
    /// vCPUs that are online at the start.
    pub vcpus: u32,
    /// vCPUs that can be brought online; not less than `vcpus`.
    pub maxvcpus: u32,
    /// Where vCPUs may run.
    pub cpus: Affinity,
    /// Where vCPUs should run.
    pub cpus_soft: Affinity,
    /// Share of CPU time against other domains.
    pub cpu_weight: u16,
    /// Most CPU time, in percent of one CPU; 0 for no limit.
    pub cap: u16,
    /// What is done when the domain stops.
    pub actions: Actions,
    /// Pages of the grant table; the hypervisor's default when not given.
    pub max_grant_frames: Option<u32>,
    /// Pages of the table of mapped grants; the hypervisor's default when not given.
    pub max_maptrack_frames: Option<u32>,
    /// Highest version of the grant table: 1 or 2; the hypervisor's highest when not given.
    pub max_grant_version: Option<u32>,
    /// Most event channels.
    pub max_event_channels: u32,
    /// Disks.
    pub disks: Vec<DiskSpec>,
    /// Network interfaces.
    pub vifs: Vec<VifSpec>,
}

/// Whether a domain can have this name.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name cannot be empty");
    }
    // Files are named after it.
    if name.len() > 200 {
        return Err("a name cannot be longer than 200 bytes");
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a name of digits only would be taken for a domain id");
    }
    if name
        .chars()
        .any(|letter| letter.is_control() || letter == '/')
    {
        return Err("a name cannot hold control characters or \"/\"");
    }
    Ok(())
}
