//! The way to hypervisor, xenstore and terminal, as traits.

mod core_file;
#[cfg(test)]
pub mod fake;
mod machine;
mod xen;
pub mod xenstore;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxen_config::{DomainConfig, HostCpus};
use serde::Serialize;
use uuid::Uuid;

use crate::failure::Failure;

pub use machine::Machine;

/// Everything outside of `ox` that commands need. Hypervisor and xenstore are reached when first asked for, so that
/// `ox dmesg` works without xenstored.
pub trait Toolstack {
    /// The hypervisor.
    fn xen(&mut self) -> Result<&mut dyn Hypervisor, Failure>;
    /// Xenstore.
    fn store(&mut self) -> Result<&mut dyn Store, Failure>;
    /// Joins a console to the terminal until the user detaches or it closes.
    fn attach(&mut self, tty: &str) -> Result<(), Failure>;
    /// Waits.
    fn sleep(&mut self, time: Duration);
    /// Seconds since 1970.
    fn unix_time(&self) -> u64;
    /// Seconds that dom0 has been running.
    fn uptime(&self) -> io::Result<u64>;
    /// Where the records of domains are.
    fn records(&self) -> PathBuf;
    /// Whether a supervisor runs, which acts on records.
    fn is_supervised(&self) -> bool;
}

/// Operations of the hypervisor.
pub trait Hypervisor {
    /// What it is.
    fn version(&mut self) -> io::Result<Version>;
    /// What the machine has.
    fn machine(&mut self) -> io::Result<MachineInfo>;
    /// The CPUs and their nodes.
    fn cpus(&mut self) -> io::Result<HostCpus>;
    /// All domains, ascending.
    fn domains(&mut self) -> io::Result<Vec<DomainState>>;
    /// One domain, if it is there.
    fn domain(&mut self, domid: u16) -> io::Result<Option<DomainState>>;
    /// Makes a domain, fills its memory and leaves it paused. When it fails nothing is left.
    fn build(&mut self, config: &DomainConfig, uuid: Uuid) -> Result<Built, Failure>;
    /// Destroys a domain.
    fn destroy(&mut self, domid: u16) -> io::Result<()>;
    /// Gives it another identity.
    fn set_uuid(&mut self, domid: u16, uuid: Uuid) -> io::Result<()>;
    /// Writes its memory to a file.
    fn dump_core(&mut self, domid: u16, file: &Path) -> io::Result<()>;
    /// Stops all vCPUs.
    fn pause(&mut self, domid: u16) -> io::Result<()>;
    /// Takes one pause back.
    fn unpause(&mut self, domid: u16) -> io::Result<()>;
    /// Sets the limit of memory in KiB.
    fn set_max_memory(&mut self, domid: u16, kib: u64) -> io::Result<()>;
    /// State of a vCPU.
    fn vcpu(&mut self, domid: u16, vcpu: u32) -> io::Result<VcpuState>;
    /// CPUs that a vCPU may (first) and should (second) run on.
    fn affinity(&mut self, domid: u16, vcpu: u32) -> io::Result<(BTreeSet<u32>, BTreeSet<u32>)>;
    /// Sets them; `None` leaves as it is.
    fn set_affinity(
        &mut self,
        domid: u16,
        vcpu: u32,
        hard: Option<&BTreeSet<u32>>,
        soft: Option<&BTreeSet<u32>>,
    ) -> io::Result<()>;
    /// Share of CPU time.
    fn share(&mut self, domid: u16) -> io::Result<Share>;
    /// Sets it.
    fn set_share(&mut self, domid: u16, share: Share) -> io::Result<()>;
    /// Microseconds that a vCPU which wakes another on its own CPU runs on before that one may take its place.
    fn rate_limit(&mut self) -> io::Result<u32>;
    /// Sets it.
    fn set_rate_limit(&mut self, micros: u32) -> io::Result<()>;
    /// What a domain has of grant tables and may have of them and of page tables.
    fn limits(&mut self, domid: u16) -> io::Result<Limits>;
    /// Presses debug keys of the hypervisor.
    fn debug_keys(&mut self, keys: &str) -> io::Result<()>;
    /// The hypervisor's log.
    fn log(&mut self) -> io::Result<Vec<u8>>;
    /// Clears it.
    fn clear_log(&mut self) -> io::Result<()>;
    /// Sends an event by the number that `XEN_DOMCTL_sendtrigger` gives it.
    fn trigger(&mut self, domid: u16, trigger: u32, vcpu: u32) -> io::Result<()>;
}

/// Operations of xenstore.
pub trait Store {
    /// A node's value, if it is there.
    fn read(&mut self, path: &str) -> io::Result<Option<String>>;
    /// Names of a node's children; none if it is not there.
    fn list(&mut self, path: &str) -> io::Result<Vec<String>>;
    /// How much there is of everything.
    fn stats(&mut self) -> io::Result<String>;
    /// Makes all changes or none.
    fn apply(&mut self, changes: &[Change]) -> io::Result<()>;
    /// Removes a node and all below it, if it is there, whoever writes to it meanwhile: that could make `apply` fail.
    fn remove(&mut self, path: &str) -> io::Result<()>;
    /// Tells xenstored of a new domain's ring.
    fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> io::Result<()>;
    /// Tells xenstored to let go of a domain.
    fn release(&mut self, domid: u16) -> io::Result<()>;
}

/// A change of xenstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a node with its permissions.
    Write {
        /// Path.
        path: String,
        /// Value.
        value: String,
        /// Who may do what; `None` keeps or inherits.
        access: Option<Access>,
    },
    /// Removes a node and all below it, if it is there.
    Remove {
        /// Path.
        path: String,
    },
}

/// Who may read and write a node, besides dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    HostOnly,
    /// The domain may read (`n0 rU`).
    GuestReads(u16),
    /// The domain owns the node (`nU`).
    GuestOwns(u16),
}

/// A domain that was built and not yet announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Number.
    pub domid: u16,
    /// Frame of the console ring.
    pub console_gfn: u64,
    /// Event channel of the console in the domain.
    pub console_port: u32,
    /// Frame of the xenstore ring.
    pub store_gfn: u64,
    /// Event channel of xenstore in the domain.
    pub store_port: u32,
}

/// Share of CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Weight; 256 is the default.
    pub weight: u16,
    /// Percent of one CPU; 0 is no bound.
    pub cap: u16,
}

impl Default for Share {
    /// What a new domain has.
    fn default() -> Self {
        Self {
            weight: oxen_config::domain::DEFAULT_WEIGHT,
            cap: 0,
        }
    }
}

/// Limits of a domain that the hypervisor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Frames of its grant table.
    pub grant_frames: u32,
    /// Most that it may have of those.
    pub max_grant_frames: u32,
    /// Most memory for the tables of its guest-physical map, in KiB.
    pub max_tables_kib: u64,
}

/// State of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DomainState {
    /// Number.
    pub domid: u16,
    /// Identity.
    pub uuid: Uuid,
    /// Being destroyed.
    pub dying: bool,
    /// Has shut down, and why.
    pub shutdown: Option<&'static str>,
    /// Paused by a tool.
    pub paused: bool,
    /// All vCPUs wait.
    pub blocked: bool,
    /// A vCPU runs.
    pub running: bool,
    /// Memory that it has, in KiB.
    pub memory_kib: u64,
    /// Memory that it may have, in KiB.
    pub max_memory_kib: u64,
    /// vCPUs that are online.
    pub vcpus_online: u32,
    /// vCPUs that can be.
    pub vcpus: u32,
    /// Time that its vCPUs ran, in nanoseconds.
    pub cpu_time_ns: u64,
}

impl DomainState {
    /// xl's six letters.
    pub fn flags(&self) -> String {
        let crashed = self.shutdown == Some("crash");
        [
            (self.running, 'r'),
            (self.blocked, 'b'),
            (self.paused, 'p'),
            (self.shutdown.is_some() && !crashed, 's'),
            (crashed, 'c'),
            (self.dying, 'd'),
        ]
        .map(|(set, letter)| if set { letter } else { '-' })
        .iter()
        .collect()
    }
}

/// State of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuState {
    /// Up.
    pub online: bool,
    /// Waits.
    pub blocked: bool,
    /// On a CPU.
    pub running: bool,
    /// Time that it ran, in nanoseconds.
    pub cpu_time_ns: u64,
    /// CPU that it runs on or ran on last.
    pub cpu: u32,
}

/// What the hypervisor is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// Xen version of the ABI.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// What follows.
    pub extra: String,
    /// Kinds of guests.
    pub capabilities: String,
    /// Source revision.
    pub changeset: String,
    /// Command line.
    pub command_line: String,
    /// Compiler, builder, builder's domain, date.
    pub compile: [String; 4],
}

/// What the machine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineInfo {
    /// CPUs that run.
    pub cpus: u32,
    /// Highest CPU number.
    pub max_cpu_id: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// Cores of a socket.
    pub cores_per_socket: u32,
    /// Threads of a core.
    pub threads_per_core: u32,
    /// Frequency in kHz.
    pub cpu_khz: u32,
    /// Memory of the machine, in KiB.
    pub total_kib: u64,
    /// Memory that no domain has, in KiB.
    pub free_kib: u64,
    /// What of it domains have given back and is not cleared yet, in KiB.
    pub scrub_kib: u64,
    /// What of it is claimed for domains that are being built, in KiB.
    pub claimed_kib: u64,
    /// What can be virtualized, in xl's words.
    pub virt_caps: String,
}
