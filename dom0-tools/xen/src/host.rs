//! The machine and the hypervisor (sysctl, xen_version).

use std::io;

use crate::control::sysctl;
use crate::domain::{CREDIT2, SCHEDULER_GET, SCHEDULER_PUT};
use crate::layout;
use crate::privcmd::Privcmd;

const READ_CONSOLE: u32 = 1;
const PHYSINFO: u32 = 3;
const DEBUG_KEYS: u32 = 7;
const CPU_TOPOLOGY: u32 = 16;
const SCHEDULER_OP: u32 = 19;
const HYPERCALL_XEN_VERSION: u64 = oxen_abi::numbers::XEN_VERSION;
const VERSION: u64 = 0;
const EXTRA_VERSION: u64 = 1;
const COMPILE_INFO: u64 = 2;
const CAPABILITIES: u64 = 3;
const CHANGESET: u64 = 4;
const COMMAND_LINE: u64 = 9;

/// `xen_sysctl_physinfo`: the machine.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PhysInfo {
    /// Threads of a core.
    pub threads_per_core: u32,
    /// Cores of a socket.
    pub cores_per_socket: u32,
    /// CPUs that run.
    pub cpus: u32,
    /// Highest CPU number that can be.
    pub max_cpu_id: u32,
    /// NUMA nodes.
    pub nodes: u32,
    /// Highest node number that can be.
    pub max_node_id: u32,
    /// Frequency of the CPUs.
    pub cpu_khz: u32,
    /// What the hypervisor can do: 1 HVM, 2 PV, 4 devices for guests, 8 nested paging, 256 and 512 grant versions 1 and 2.
    pub capabilities: u32,
    /// None on x86.
    pub arch_capabilities: u32,
    /// Unused.
    pub pad: u32,
    /// Pages of the machine.
    pub total_pages: u64,
    /// Pages that are free, those to be scrubbed not counted.
    pub free_pages: u64,
    /// Freed pages that are not scrubbed yet.
    pub scrub_pages: u64,
    /// Free pages that are claimed.
    pub outstanding_pages: u64,
    /// Highest machine page number.
    pub max_mfn: u64,
    /// CPUID feature words.
    pub hw_cap: [u32; 8],
}
layout!(
    PhysInfo,
    112,
    capabilities = 28,
    total_pages = 40,
    max_mfn = 72,
    hw_cap = 80
);

/// `xen_sysctl_readconsole`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ReadConsole {
    clear: u8,
    incremental: u8,
    pad: [u8; 2],
    index: u32,
    buffer: u64,
    count: u32,
    pad2: u32,
}
layout!(ReadConsole, 24, index = 4, buffer = 8, count = 16);

/// `xen_sysctl_cputopoinfo`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct TopologyInfo {
    count: u32,
    pad: u32,
    buffer: u64,
}
layout!(TopologyInfo, 16, buffer = 8);

/// Where a CPU sits (`xen_sysctl_cputopo`); `u32::MAX` means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CpuTopology {
    /// Core.
    pub core: u32,
    /// Socket.
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
}
layout!(CpuTopology, 12, node = 8);

/// `xen_sysctl_scheduler_op` with the credit2 arm.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct SchedulerOp {
    cpu_pool: u32,
    scheduler: u32,
    cmd: u32,
    pad: u32,
    rate_limit: u32,
    more: [u32; 3],
}
layout!(SchedulerOp, 32, cmd = 8, rate_limit = 16);

/// Facts about the machine.
///
/// # Errors
/// The hypervisor's errno.
pub fn physinfo(xen: &Privcmd) -> io::Result<PhysInfo> {
    sysctl(xen, PHYSINFO, PhysInfo::default())
}

/// Where CPUs `0..cpus` sit.
///
/// # Errors
/// The hypervisor's errno.
pub fn cpu_topology(xen: &Privcmd, cpus: u32) -> io::Result<Vec<CpuTopology>> {
    let size = size_of::<CpuTopology>();
    let buffer = xen.buffer(cpus as usize * size)?;
    let operation = TopologyInfo {
        count: cpus,
        pad: 0,
        buffer: buffer.address(),
    };
    let found = sysctl(xen, CPU_TOPOLOGY, operation)?.count.min(cpus);
    Ok((0..found as usize).map(|i| buffer.read(i * size)).collect())
}

/// Microseconds that a vCPU which wakes another on its own CPU runs on before that one may take its place; 0 for no such limit.
///
/// # Errors
/// The hypervisor's errno.
pub fn rate_limit(xen: &Privcmd) -> io::Result<u32> {
    scheduler_op(xen, SCHEDULER_GET, 0)
}

/// Sets [`rate_limit`].
///
/// # Errors
/// EINVAL: it is neither 0 nor from 100 to 500000.
pub fn set_rate_limit(xen: &Privcmd, micros: u32) -> io::Result<()> {
    scheduler_op(xen, SCHEDULER_PUT, micros).map(|_| ())
}

fn scheduler_op(xen: &Privcmd, cmd: u32, rate_limit: u32) -> io::Result<u32> {
    let operation = SchedulerOp {
        scheduler: CREDIT2,
        cmd,
        rate_limit,
        ..SchedulerOp::default()
    };
    Ok(sysctl(xen, SCHEDULER_OP, operation)?.rate_limit)
}

/// A piece of the hypervisor's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsolePiece {
    /// The text.
    pub text: Vec<u8>,
    /// Where to read on.
    pub next: u32,
}

/// Reads up to `size` bytes of the hypervisor's log: from byte `from` on, or what the ring still holds if `None`. With `clear`
/// the next whole read begins after what is there now.
///
/// # Errors
/// The hypervisor's errno.
pub fn read_console(
    xen: &Privcmd,
    size: u32,
    from: Option<u32>,
    clear: bool,
) -> io::Result<ConsolePiece> {
    let buffer = xen.buffer(size as usize)?;
    let operation = ReadConsole {
        clear: u8::from(clear),
        incremental: u8::from(from.is_some()),
        index: from.unwrap_or(0),
        buffer: buffer.address(),
        count: size,
        ..ReadConsole::default()
    };
    let done = sysctl(xen, READ_CONSOLE, operation)?;
    Ok(ConsolePiece {
        text: buffer.to_vec(done.count.min(size) as usize),
        next: done.index,
    })
}

/// Presses keys on the hypervisor's debug console.
///
/// # Errors
/// The hypervisor's errno.
pub fn debug_keys(xen: &Privcmd, keys: &[u8]) -> io::Result<()> {
    let buffer = xen.buffer_of(keys)?;
    let count = u32::try_from(keys.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    sysctl(xen, DEBUG_KEYS, [buffer.address(), u64::from(count)]).map(|_| ())
}

/// The hypervisor: what it says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Xen's version that its ABI is of.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// What follows the numbers.
    pub extra: String,
    /// Compiler, builder, builder's domain and date.
    pub compile: [String; 4],
    /// Kinds of guests, such as `hvm-3.0-x86_64`, separated by spaces.
    pub capabilities: String,
    /// Source revision.
    pub changeset: String,
    /// Its command line.
    pub command_line: String,
}

/// Asks the hypervisor what it is.
///
/// # Errors
/// The hypervisor's errno.
pub fn version(xen: &Privcmd) -> io::Result<Version> {
    let number = xen.hypercall(HYPERCALL_XEN_VERSION, [VERSION, 0, 0, 0, 0])?;
    let number = u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData)?;
    let text = |cmd, size| -> io::Result<Vec<u8>> {
        let buffer = xen.buffer(size)?;
        xen.hypercall(HYPERCALL_XEN_VERSION, [cmd, buffer.address(), 0, 0, 0])?;
        Ok(buffer.to_vec(size))
    };
    let compile = text(COMPILE_INFO, 144)?;
    Ok(Version {
        major: number >> 16,
        minor: number & 0xFFFF,
        extra: c_string(&text(EXTRA_VERSION, 16)?),
        compile: [0..64, 64..80, 80..112, 112..144].map(|part| c_string(&compile[part])),
        capabilities: c_string(&text(CAPABILITIES, 1024)?),
        changeset: c_string(&text(CHANGESET, 64)?),
        command_line: c_string(&text(COMMAND_LINE, 1024)?),
    })
}

fn c_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_at_their_zero_or_their_field() {
        assert_eq!(c_string(b"4.17\0junk"), "4.17");
        assert_eq!(c_string(b"full"), "full");
    }
}
