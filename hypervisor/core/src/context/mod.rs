//! A domain's state as records (`public/arch-x86/hvm/save.h`): written, and read and checked as a whole before any of it counts.

pub mod check;
pub mod cpu;
pub mod fpu;
mod guest;
pub mod lapic;
pub mod mtrr;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

pub use check::Limits;
pub use cpu::{Cpu, Event};
pub use fpu::Extended;
pub use mtrr::Mtrr;

/// What the records say of one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuContext {
    /// Registers; one without them is down.
    pub cpu: Option<Box<Cpu>>,
    /// Extended state.
    pub extended: Option<Extended>,
    /// The APIC base MSR.
    pub apic_base: Option<u64>,
    /// The local APIC's registers.
    pub apic_registers: Option<Box<[u8; lapic::REGISTERS]>>,
    /// Memory types.
    pub mtrr: Option<Mtrr>,
}

impl VcpuContext {
    /// Takes in what a later context says. What that has no record of stays, but for registers: without them the vCPU is down.
    pub fn merge(&mut self, later: Self) {
        self.cpu = later.cpu;
        self.extended = later.extended.or_else(|| self.extended.take());
        self.apic_base = later.apic_base.or(self.apic_base);
        self.apic_registers = later.apic_registers.or_else(|| self.apic_registers.take());
        self.mtrr = later.mtrr.or(self.mtrr);
    }
}

/// Reads a whole context for a domain of so many vCPUs.
///
/// # Errors
/// `NoData` without a header at the beginning or an end, `NoDev` for a device that PVH domains do not have, `NxIo` for an MSR
/// that there is not, `OpNotSupp` and `NoMem` for extended state, `Inval` for all else that is wrong.
pub fn read(blob: &[u8], vcpus: usize, limits: &Limits) -> Result<Vec<VcpuContext>, Errno> {
    let mut list = Vec::new();
    list.try_reserve_exact(vcpus).map_err(|_| Errno::NoMem)?;
    list.resize_with(vcpus, VcpuContext::default);
    let mut rest = blob;
    let header = Record::take(&mut rest)?;
    if header.kind != record::HEADER {
        return Err(Errno::NoData);
    }
    check_header(header.exactly()?)?;
    loop {
        let next = Record::take(&mut rest)?;
        if next.kind == record::END {
            return Ok(list);
        }
        load(&mut list, &next, limits)?;
    }
}

/// One record.
struct Record<'a> {
    kind: u16,
    instance: u16,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(rest: &mut &'a [u8]) -> Result<Self, Errno> {
        let (head, behind) = rest
            .split_at_checked(record::DESCRIPTOR)
            .ok_or(Errno::NoData)?;
        let length = word(head, 4) as usize;
        let (payload, behind) = behind.split_at_checked(length).ok_or(Errno::Inval)?;
        *rest = behind;
        let first = word(head, 0);
        Ok(Self {
            kind: first as u16,
            instance: (first >> 16) as u16,
            payload,
        })
    }

    fn exactly<const N: usize>(&self) -> Result<&'a [u8; N], Errno> {
        self.payload.try_into().map_err(|_| Errno::Inval)
    }
}

fn check_header(bytes: &[u8; record::HEADER_SIZE]) -> Result<(), Errno> {
    if word(bytes, 0) == record::MAGIC && word(bytes, 4) == record::VERSION {
        Ok(())
    } else {
        Err(Errno::Inval)
    }
}

fn load(list: &mut [VcpuContext], from: &Record<'_>, limits: &Limits) -> Result<(), Errno> {
    if record::OF_DEVICES.contains(&from.kind) {
        return Err(Errno::NoDev);
    }
    let vcpu = list
        .get_mut(usize::from(from.instance))
        .ok_or(Errno::Inval)?;
    match from.kind {
        record::CPU => vcpu.cpu = Some(Box::new(Cpu::read(from.exactly()?, limits)?)),
        record::CPU_XSAVE => vcpu.extended = Some(Extended::read(from.payload, limits)?),
        record::LAPIC => vcpu.apic_base = Some(lapic::read(from.exactly()?)?),
        record::LAPIC_REGS => {
            let registers: &[u8; lapic::REGISTERS] = from.exactly()?;
            lapic::check_registers(registers)?;
            vcpu.apic_registers = Some(Box::new(*registers));
        }
        record::MTRR => vcpu.mtrr = Some(Mtrr::read(from.exactly()?)?),
        // Neither machine checks nor an adjusted TSC: nothing but zeros.
        record::VMCE_VCPU => only_zeros(from.exactly::<{ record::VMCE_SIZE }>()?)?,
        record::TSC_ADJUST => only_zeros(from.exactly::<{ record::TSC_ADJUST_SIZE }>()?)?,
        record::CPU_MSR => check_msrs(from.payload)?,
        _ => return Err(Errno::Inval),
    }
    Ok(())
}

fn only_zeros(bytes: &[u8]) -> Result<(), Errno> {
    if bytes.iter().all(|&byte| byte == 0) {
        Ok(())
    } else {
        Err(Errno::Inval)
    }
}

/// `hvm_msr`: MSRs that guests have beside those of the other records. There are none here, so all are 0.
fn check_msrs(payload: &[u8]) -> Result<(), Errno> {
    const HEAD: usize = 8;
    const ENTRY: usize = 16;
    let (head, entries) = payload.split_at_checked(HEAD).ok_or(Errno::Inval)?;
    if entries.len() as u64 != u64::from(word(head, 0)) * ENTRY as u64 {
        return Err(Errno::Inval);
    }
    for entry in entries.chunks_exact(ENTRY) {
        if word(entry, 4) != 0 {
            return Err(Errno::Inval);
        }
        if long(entry, 8) != 0 {
            return Err(Errno::NxIo);
        }
    }
    Ok(())
}

/// Adds a record.
pub fn push(bytes: &mut Vec<u8>, kind: u16, instance: u16, payload: &[u8]) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(instance.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
