//! A domain's state as records (`public/hvm/save.h`): what builders start from, what a dump of a domain needs, and what a domain
//! goes on with. What the records are and what is wrong with one is `oxen_core::context`'s.
//!
//! A PVH domain has no devices but its vCPUs' local APICs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::domctl::{context as record, guest_context};
use oxen_core::context::{self, Limits, check, lapic};
use oxen_core::registers::{cr4, efer};

use super::Outcome;
use super::arguments::{Argument, read_bytes, write_bytes};
use crate::cpu::fpu;
use crate::domain::Domain;
use crate::memory::guest;
use crate::time;
use crate::vcpu::Running;
use crate::vcpu::cpuid::{self, View};
use crate::vcpu::snapshot::Saved;
use crate::virt::Vcpu;

/// Bytes of a context at most that a builder may give: several times what 32 vCPUs need.
const MOST_BYTES: u32 = 1 << 20;

/// Records that each vCPU has, in the order of their numbers, and what they hold. Registers only one that is up has.
type Writer = fn(&Saved) -> Option<Vec<u8>>;
const OF_VCPU: [(u16, Writer); 7] = [
    (record::CPU, |saved| {
        let cpu = saved.cpu.as_ref()?;
        Some(cpu.to_record(time::ticks()).to_vec())
    }),
    (record::LAPIC, |saved| {
        Some(lapic::to_record(saved.apic_base, &saved.apic_registers).to_vec())
    }),
    (record::LAPIC_REGS, |saved| {
        Some(saved.apic_registers.to_vec())
    }),
    (record::MTRR, |saved| Some(saved.mtrr.to_record().to_vec())),
    (record::CPU_XSAVE, |saved| {
        (!saved.extended.is_empty()).then(|| saved.extended.clone())
    }),
    (record::VMCE_VCPU, |_| Some([0; record::VMCE_SIZE].to_vec())),
    (record::TSC_ADJUST, |_| {
        Some([0; record::TSC_ADJUST_SIZE].to_vec())
    }),
];

/// `XEN_DOMCTL_gethvmcontext`: all records, or without a buffer the bytes that they need at most.
///
/// # Errors
/// `NoSpc` for a buffer too small, `Restart` while CPUs look up the state.
pub fn get<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let mut argument = Argument::<16>::read(vcpu, body)?;
    let (size, buffer) = (argument.u32(0), argument.u64(8));
    if buffer != 0 {
        let bytes = all(domain)?;
        if bytes.len() > size as usize {
            return Err(Errno::NoSpc);
        }
        write_bytes(vcpu, buffer, &bytes)?;
        argument.set_u32(0, bytes.len() as u32);
    } else {
        argument.set_u32(0, most_bytes(domain.vcpus.len()) as u32);
    }
    argument.write(vcpu, body).map(|()| 0)
}

/// Bytes of the context of a domain with so many vCPUs, all of them up.
fn most_bytes(vcpus: usize) -> usize {
    let extended = match cpuid::xcr0_allowed() {
        0 => 0,
        _ => record::DESCRIPTOR + record::XSAVE_AREA + fpu::area_size(),
    };
    let others = [
        record::CPU_SIZE,
        record::LAPIC_SIZE,
        record::LAPIC_REGS_SIZE,
        record::MTRR_SIZE,
        record::VMCE_SIZE,
        record::TSC_ADJUST_SIZE,
    ];
    let each = others.map(|size| record::DESCRIPTOR + size);
    let ends = 2 * record::DESCRIPTOR + record::HEADER_SIZE;
    ends + vcpus * (each.iter().sum::<usize>() + extended)
}

/// `XEN_DOMCTL_gethvmcontext_partial`: one record without its descriptor.
///
/// # Errors
/// `Inval` for a kind that there is not, `NoEnt` for a vCPU that there is not, `NoData` for the registers of one that is down,
/// `NoBufs` for a buffer too small, `Restart` as for [`get`].
pub fn get_partial<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<24>::read(vcpu, body)?;
    let (kind, instance) = (argument.u32(0), argument.u32(4) as usize);
    let (size, buffer) = (argument.u64(8), argument.u64(16));
    let writer = OF_VCPU
        .iter()
        .find(|(known, _)| u32::from(*known) == kind)
        .map(|(_, writer)| writer)
        .ok_or(Errno::Inval)?;
    let target = domain.vcpus.get(instance).ok_or(Errno::NoEnt)?;
    if kind == u32::from(record::CPU) && !target.is_up() {
        return Err(Errno::NoData);
    }
    let saved = take_state(domain, instance)?;
    let bytes = writer(&saved).ok_or(Errno::NoData)?;
    if buffer != 0 {
        if size < bytes.len() as u64 {
            return Err(Errno::NoBufs);
        }
        write_bytes(vcpu, buffer, &bytes)?;
    }
    let length = bytes.len() as u64;
    write_bytes(vcpu, body.wrapping_add(8), &length.to_le_bytes()).map(|()| 0)
}

/// `XEN_DOMCTL_getvcpucontext`: the registers in the form that PV guests have, too.
///
/// # Errors
/// `Inval` for a vCPU that there is not, `NoData` for one that was never started, `Restart` as for [`get`].
pub fn get_vcpu<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, body)?;
    let index = argument.u32(0) as usize;
    let target = domain.vcpus.get(index).ok_or(Errno::Inval)?;
    if !target.is_initialised() {
        return Err(Errno::NoData);
    }
    let saved = take_state(domain, index)?;
    let cpu = saved.cpu.ok_or(Errno::NoData)?;
    let bytes: Box<[u8; guest_context::SIZE]> = cpu.to_guest_context(target.is_up());
    write_bytes(vcpu, argument.u64(8), &*bytes).map(|()| 0)
}

/// `XEN_DOMCTL_sethvmcontext`: the whole is checked, then all vCPUs are down but for those that it has registers of, which go on
/// with them. State that it has no record of stays.
///
/// # Errors
/// Those of [`context::read`].
pub fn set<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, body)?;
    let (size, buffer) = (argument.u32(0), argument.u64(8));
    if size > MOST_BYTES {
        return Err(Errno::Inval);
    }
    let mut blob = Vec::new();
    blob.try_reserve_exact(size as usize)
        .map_err(|_| Errno::NoMem)?;
    blob.resize(size as usize, 0);
    read_bytes(vcpu, buffer, &mut blob)?;
    let limits = limits(domain);
    let mut list = context::read(&blob, domain.vcpus.len(), &limits)?;
    if domain.life.is_dying() {
        return Err(Errno::Inval);
    }
    domain.pause();
    let result = give(domain, &mut list, &limits);
    domain.unpause()?;
    result.map(|()| 0)
}

fn give(
    domain: &Domain,
    list: &mut Vec<context::VcpuContext>,
    limits: &Limits,
) -> Result<(), Errno> {
    for cpu in list.iter_mut().filter_map(|vcpu| vcpu.cpu.as_mut()) {
        if cpu.registers.has_directories() {
            cpu.registers.directories = guest::directories(domain, cpu.registers.cr3);
            check::check(&cpu.registers, limits)?;
        }
    }
    for (vcpu, context) in domain.vcpus.iter().zip(list.drain(..)) {
        vcpu.give_state(context);
    }
    Ok(())
}

/// What the registers of the domain may be.
fn limits(domain: &Domain) -> Limits {
    const EBX: usize = 1;
    const ECX: usize = 2;
    const EDX: usize = 3;
    /// Leaf, register, bit, and what it allows in CR4.
    const CR4: [(u32, usize, u32, u64); 6] = [
        (7, ECX, 2, cr4::UMIP),
        (7, EBX, 0, cr4::FSGSBASE),
        (1, ECX, 17, cr4::PCIDE),
        (1, ECX, 26, cr4::OSXSAVE),
        (7, EBX, 7, cr4::SMEP),
        (7, EBX, 20, cr4::SMAP),
    ];
    let view = View::of(domain);
    let has = |leaf: u32, register: usize, bit: u32| {
        cpuid::values(&view, leaf, 0)[register] >> bit & 1 != 0
    };
    let newer = CR4
        .into_iter()
        .filter(|&(leaf, register, bit, _)| has(leaf, register, bit))
        .fold(0, |all, (.., bit)| all | bit);
    let fast_fxsr = if has(0x8000_0001, EDX, 25) {
        efer::FAST_FXSR
    } else {
        0
    };
    Limits {
        cr4: cr4::FIRST | cr4::MACHINE_CHECK | newer,
        efer: efer::FIRST | fast_fxsr,
        physical_bits: cpuid::values(&view, 0x8000_0008, 0)[0] & 0xFF,
        xcr0: cpuid::xcr0_allowed(),
        xsave_size: fpu::area_size(),
        mxcsr: fpu::mxcsr_mask(),
    }
}

fn all(domain: &Domain) -> Result<Vec<u8>, Errno> {
    collect(domain, 0..domain.vcpus.len())?;
    let states: Vec<Option<Box<Saved>>> =
        domain.vcpus.iter().map(|vcpu| vcpu.take_state()).collect();
    let mut bytes = Vec::new();
    context::push(&mut bytes, record::HEADER, 0, &header());
    for (kind, writer) in OF_VCPU {
        for (vcpu, saved) in domain.vcpus.iter().zip(&states) {
            let is_wanted = kind != record::CPU || vcpu.is_up();
            let payload = saved.as_deref().filter(|_| is_wanted).and_then(writer);
            if let Some(payload) = payload {
                context::push(&mut bytes, kind, vcpu.id.0, &payload);
            }
        }
    }
    context::push(&mut bytes, record::END, 0, &[]);
    Ok(bytes)
}

/// The state of a vCPU that there is.
///
/// # Errors
/// `Restart` until it has been looked up, `Inval` for a domain that is being destroyed.
pub fn take_state(domain: &Domain, index: usize) -> Result<Box<Saved>, Errno> {
    collect(domain, index..index + 1)?;
    domain.vcpus[index].take_state().ok_or(Errno::Restart)
}

/// Has the state of the given vCPUs looked up; done when all is there.
fn collect(domain: &Domain, vcpus: core::ops::Range<usize>) -> Result<(), Errno> {
    if domain.life.is_dying() {
        return Err(Errno::Inval);
    }
    let missing = domain.vcpus[vcpus].iter().filter(|vcpu| !vcpu.has_state());
    let mut complete = true;
    for vcpu in missing {
        complete = false;
        vcpu.want_state();
    }
    if complete {
        Ok(())
    } else {
        Err(Errno::Restart)
    }
}

fn header() -> [u8; record::HEADER_SIZE] {
    let mut bytes = [0; record::HEADER_SIZE];
    bytes[..4].copy_from_slice(&record::MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&record::VERSION.to_le_bytes());
    let signature = core::arch::x86_64::__cpuid(1).eax;
    bytes[16..20].copy_from_slice(&signature.to_le_bytes());
    bytes[20..24].copy_from_slice(&(time::khz() as u32).to_le_bytes());
    bytes
}
