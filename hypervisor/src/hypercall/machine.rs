//! What `sysctl` tells of the machine, and its console: log, debug keys, CPUs, memory nodes.

use oxen_abi::Errno;
use oxen_abi::sysctl::pci_topology as topology;
use oxen_core::pci::Sbdf;

use super::Outcome;
use super::arguments::{Argument, read_bytes, write_bytes};
use crate::console;
use crate::cpu;
use crate::debug_keys;
use crate::memory::frames;
use crate::platform::pci;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// Bytes of the log copied at a time.
const PIECE: usize = 512;
/// Most keys in a call.
const MOST_KEYS: u32 = 64;
/// Bytes of `xen_sysctl_cputopo` and `xen_sysctl_meminfo`.
const TOPOLOGY: u64 = 12;
const MEMORY_NODE: u64 = 16;
/// What a node's distance from itself is by convention (ACPI, SLIT).
const LOCAL_DISTANCE: u32 = 10;

/// `XEN_SYSCTL_readconsole`: the log from its beginning or from a position, as much as fits; the position behind it is told.
pub fn read_console<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    const CLEAR: usize = 0;
    const INCREMENTAL: usize = 1;
    let mut argument = Argument::<24>::read(vcpu, body)?;
    let flag = |offset: usize| argument.bytes()[offset] != 0;
    let (clear, incremental) = (flag(CLEAR), flag(INCREMENTAL));
    let (buffer, most) = (argument.u64(8), argument.u32(16));
    let mut position = console::log_begin(incremental.then(|| argument.u32(4)));
    let mut done = 0;
    while done < most {
        let mut piece = [0; PIECE];
        let part = PIECE.min((most - done) as usize);
        let (count, from) = console::read_log(position, &mut piece[..part]);
        if count == 0 {
            break;
        }
        write_bytes(vcpu, buffer.wrapping_add(done.into()), &piece[..count])?;
        done += count as u32;
        position = from + count as u64;
    }
    if clear {
        console::clear_log(position);
    }
    argument.set_u32(4, position as u32);
    argument.set_u32(16, done);
    argument.write(vcpu, body).map(|()| 0)
}

/// `XEN_SYSCTL_debug_keys`.
pub fn press_keys<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, body)?;
    let (keys, count) = (argument.u64(0), argument.u32(8));
    if count > MOST_KEYS {
        return Err(Errno::Inval);
    }
    for index in 0..u64::from(count) {
        let mut key = [0];
        read_bytes(vcpu, keys.wrapping_add(index), &mut key)?;
        debug_keys::press(key[0]);
    }
    Ok(0)
}

/// `XEN_SYSCTL_getcpuinfo`: nanoseconds that each CPU was idle.
pub fn idle_times<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, body)?;
    let (most, buffer) = (argument.u32(0), argument.u64(8));
    let mut count = 0;
    for cpu in cpu::percpu::all().take(most as usize) {
        let place = buffer.wrapping_add(u64::from(count) * 8);
        let idle = time::scale().nanos(cpu.idle_ticks());
        write_bytes(vcpu, place, &idle.to_le_bytes())?;
        count += 1;
    }
    argument.set_u32(16, count);
    argument.write(vcpu, body).map(|()| 0)
}

/// `XEN_SYSCTL_cputopoinfo`: each CPU is a core of one socket, as `physinfo` says too. Without a buffer, how many there are.
pub fn cpu_topology<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<16>::read(vcpu, body)?;
    let (most, buffer) = (argument.u32(0), argument.u64(8));
    let mut count = cpu::percpu::all().count() as u32;
    if buffer != 0 {
        count = count.min(most);
        for core in 0..count {
            let mut entry = [0; TOPOLOGY as usize];
            entry[..4].copy_from_slice(&core.to_le_bytes());
            let place = buffer.wrapping_add(u64::from(core) * TOPOLOGY);
            write_bytes(vcpu, place, &entry)?;
        }
    }
    argument.set_u32(0, count);
    argument.write(vcpu, body).map(|()| 0)
}

/// `XEN_SYSCTL_numainfo`: one node with all memory.
pub fn nodes<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, body)?;
    let (most, memory, distances) = (argument.u32(0), argument.u64(8), argument.u64(16));
    if most > 0 && memory != 0 {
        let (free, total) = (frames::free_count(), frames::of_machine());
        let mut entry = [0; MEMORY_NODE as usize];
        entry[..8].copy_from_slice(&(total << 12).to_le_bytes());
        entry[8..].copy_from_slice(&(free << 12).to_le_bytes());
        write_bytes(vcpu, memory, &entry)?;
    }
    if most > 0 && distances != 0 {
        write_bytes(vcpu, distances, &LOCAL_DISTANCE.to_le_bytes())?;
    }
    let is_question = memory == 0 && distances == 0;
    argument.set_u32(0, if is_question { 1 } else { most.min(1) });
    argument.write(vcpu, body).map(|()| 0)
}

/// `XEN_SYSCTL_pcitopoinfo`: which memory node each of some PCI devices is near. With one node the firmware tells nothing of it.
///
/// # Errors
/// `Inval` without lists.
pub fn pci_topology<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    /// Devices in one call; the caller is told how many, and asks for the rest.
    const MOST: u32 = 64;
    let mut argument = Argument::<{ topology::SIZE }>::read(vcpu, body)?;
    let (devices, nodes) = (
        argument.u64(topology::DEVICES),
        argument.u64(topology::NODES),
    );
    if devices == 0 || nodes == 0 {
        return Err(Errno::Inval);
    }
    let count = argument.u32(topology::COUNT).min(MOST);
    for index in 0..u64::from(count) {
        let at = devices.wrapping_add(index * topology::DEVICE_SIZE as u64);
        let device = Argument::<{ topology::DEVICE_SIZE }>::read(vcpu, at)?;
        let sbdf = Sbdf {
            segment: device.u16(0),
            bdf: device.u16(2).swap_bytes(),
        };
        let node = if pci::is_present(sbdf) {
            topology::NODE_UNKNOWN
        } else {
            topology::NO_DEVICE
        };
        write_bytes(vcpu, nodes.wrapping_add(index * 4), &node.to_le_bytes())?;
    }
    argument.set_u32(topology::COUNT, count);
    argument.write(vcpu, body).map(|()| 0)
}
