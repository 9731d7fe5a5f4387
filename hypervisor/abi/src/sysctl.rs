//! `sysctl` (`public/sysctl.h`, interface version 0x15): the machine, for the control domain.

/// The version that every call carries.
pub const INTERFACE_VERSION: u32 = 0x15;
/// Bytes of the header: command and version.
pub const HEADER: u64 = 8;

/// Commands.
#[allow(missing_docs)]
pub mod cmd {
    pub const READ_CONSOLE: u32 = 1;
    pub const PHYSINFO: u32 = 3;
    pub const SCHED_ID: u32 = 4;
    pub const GET_DOMAIN_INFO_LIST: u32 = 6;
    pub const DEBUG_KEYS: u32 = 7;
    pub const GET_CPU_INFO: u32 = 8;
    pub const AVAIL_HEAP: u32 = 9;
    pub const CPU_TOPOLOGY: u32 = 16;
    pub const NUMA_INFO: u32 = 17;
    pub const CPU_POOL_OP: u32 = 18;
    pub const SCHEDULER_OP: u32 = 19;
    pub const PCI_TOPOLOGY: u32 = 22;
    pub const GET_LEVELLING_CAPS: u32 = 25;
    pub const GET_CPU_FEATURES: u32 = 26;
    pub const GET_CPU_POLICY: u32 = 29;
}

/// `xen_sysctl_physinfo`: size, offsets, capabilities.
#[allow(missing_docs)]
pub mod physinfo {
    pub const SIZE: usize = 112;
    pub const THREADS_PER_CORE: usize = 0;
    pub const CORES_PER_SOCKET: usize = 4;
    pub const CPUS: usize = 8;
    pub const MAX_CPU: usize = 12;
    pub const NODES: usize = 16;
    pub const CPU_KHZ: usize = 24;
    pub const CAPABILITIES: usize = 28;
    pub const TOTAL_PAGES: usize = 40;
    pub const FREE_PAGES: usize = 48;
    pub const SCRUB_PAGES: usize = 56;
    pub const OUTSTANDING_PAGES: usize = 64;
    pub const MAX_MFN: usize = 72;
    /// Words of CPU features.
    pub const HW_CAP: usize = 80;
    pub const HW_CAP_WORDS: usize = 8;
    pub const CAPABILITY_HVM: u32 = 1 << 0;
    pub const CAPABILITY_HAP: u32 = 1 << 3;
    pub const CAPABILITY_GRANT_V1: u32 = 1 << 8;
    pub const CAPABILITY_GRANT_V2: u32 = 1 << 9;
}

/// `xen_sysctl_scheduler_op`: size and offsets. The commands are `domctl`'s.
#[allow(missing_docs)]
pub mod scheduler {
    pub const SIZE: usize = 32;
    pub const CPU_POOL: usize = 0;
    pub const ID: usize = 4;
    pub const COMMAND: usize = 8;
    /// How long a vCPU goes on before one that wakes takes its place, in microseconds; 0 for no such time.
    pub const RATE_LIMIT: usize = 16;
    /// Least and greatest limit in microseconds; 0 is none at all (`XEN_SYSCTL_SCHED_RATELIMIT_MIN` and `MAX`).
    pub const RATE_LIMITS: core::ops::RangeInclusive<u32> = 100..=500_000;
}

/// The number of the credit2 scheduler, whose parameters (weight and cap) ours has.
pub const SCHEDULER_CREDIT2: u32 = 6;

/// `xen_sysctl_cpupool_op`: size, offsets and operations. The bitmap is a pointer and, behind it, its length in bits.
#[allow(missing_docs)]
pub mod cpu_pool {
    pub const SIZE: usize = 40;
    pub const OP: usize = 0;
    pub const ID: usize = 4;
    pub const SCHEDULER: usize = 8;
    pub const DOMAIN: usize = 12;
    pub const CPU: usize = 16;
    pub const DOMAINS: usize = 20;
    pub const CPU_MAP: usize = 24;
    pub const OP_CREATE: u32 = 1;
    pub const OP_DESTROY: u32 = 2;
    pub const OP_INFO: u32 = 3;
    pub const OP_ADD_CPU: u32 = 4;
    pub const OP_REMOVE_CPU: u32 = 5;
    pub const OP_MOVE_DOMAIN: u32 = 6;
    pub const OP_FREE_INFO: u32 = 7;
    /// Any CPU, or any pool.
    pub const ANY: u32 = u32::MAX;
}

/// `xen_sysctl_pcitopoinfo`: size, offsets, and nodes that are none.
#[allow(missing_docs)]
pub mod pci_topology {
    pub const SIZE: usize = 24;
    pub const COUNT: usize = 0;
    pub const DEVICES: usize = 8;
    pub const NODES: usize = 16;
    /// Bytes of a `physdev_pci_device`: segment u16, bus u8, device and function u8.
    pub const DEVICE_SIZE: usize = 4;
    /// A device whose node is not known (`XEN_INVALID_NODE_ID`).
    pub const NODE_UNKNOWN: u32 = u32::MAX;
    /// No such device (`XEN_INVALID_DEV`).
    pub const NO_DEVICE: u32 = u32::MAX - 1;
}
