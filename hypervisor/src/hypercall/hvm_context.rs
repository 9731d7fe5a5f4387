//! A domain's state as records (`public/hvm/save.h`): what builders start from, and what a dump of a domain needs.
//!
//! There are records of the vCPUs that are up and of memory types. Other devices of an HVM guest a PVH one does not have.

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

use super::Outcome;
use super::arguments::{Argument, write_bytes};
use crate::domain::Domain;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// The reset value of the page-attribute table (SDM vol. 3, 12.12.4).
const PAT: u64 = 0x0007_0406_0007_0406;
/// All memory write-back, MTRRs on (SDM vol. 3, 12.11.2).
const MTRR_DEFAULT: u64 = 0x806;
const MTRR_FIXED: u64 = 0x0606_0606_0606_0606;
const MTRR_CAPABILITIES: u64 = 0x508;

/// `XEN_DOMCTL_gethvmcontext`: all records, or without a buffer the bytes that they need.
///
/// # Errors
/// `NoSpc` for a buffer too small, `Restart` while CPUs look up the registers.
pub fn get<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let mut argument = Argument::<16>::read(vcpu, body)?;
    let (size, buffer) = (argument.u32(0), argument.u64(8));
    let up = domain.vcpus.iter().filter(|vcpu| vcpu.is_up()).count();
    let needed = (3 + up + domain.vcpus.len()) * record::DESCRIPTOR - record::DESCRIPTOR
        + record::HEADER_SIZE
        + up * record::CPU_SIZE
        + domain.vcpus.len() * record::MTRR_SIZE;
    if buffer != 0 {
        let bytes = all(domain)?;
        if bytes.len() > size as usize {
            return Err(Errno::NoSpc);
        }
        write_bytes(vcpu, buffer, &bytes)?;
        argument.set_u32(0, bytes.len() as u32);
    } else {
        argument.set_u32(0, needed as u32);
    }
    argument.write(vcpu, body).map(|()| 0)
}

/// `XEN_DOMCTL_gethvmcontext_partial`: one record without its descriptor.
///
/// # Errors
/// `NoEnt` for one that the domain does not have, `NoSpc` for a buffer too small, `Restart` as for [`get`].
pub fn get_partial<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<24>::read(vcpu, body)?;
    let (kind, instance) = (argument.u32(0), argument.u32(4) as usize);
    let (size, buffer) = (argument.u64(8), argument.u64(16));
    let target = domain.vcpus.get(instance);
    let bytes = match u16::try_from(kind) {
        Ok(record::HEADER) if instance == 0 => header().to_vec(),
        Ok(record::MTRR) if target.is_some() => memory_types().to_vec(),
        Ok(record::CPU) if target.is_some_and(|target| target.is_up()) => {
            collect(domain, &[instance])?;
            let target = target.ok_or(Errno::NoEnt)?;
            target.take_registers().ok_or(Errno::NoEnt)?.to_vec()
        }
        _ => return Err(Errno::NoEnt),
    };
    if buffer != 0 {
        if size < bytes.len() as u64 {
            return Err(Errno::NoSpc);
        }
        write_bytes(vcpu, buffer, &bytes)?;
    }
    let length = bytes.len() as u64;
    write_bytes(vcpu, body.wrapping_add(8), &length.to_le_bytes()).map(|()| 0)
}

fn all(domain: &Domain) -> Result<Vec<u8>, Errno> {
    let vcpus = domain.vcpus.iter().enumerate();
    let up: Vec<usize> = vcpus
        .filter(|(_, vcpu)| vcpu.is_up())
        .map(|(index, _)| index)
        .collect();
    collect(domain, &up)?;
    let mut bytes = Vec::new();
    push(&mut bytes, record::HEADER, 0, &header());
    for index in up {
        // One that has gone down meanwhile has none.
        if let Some(registers) = domain.vcpus[index].take_registers() {
            push(&mut bytes, record::CPU, index, &*registers);
        }
    }
    for index in 0..domain.vcpus.len() {
        push(&mut bytes, record::MTRR, index, &memory_types());
    }
    push(&mut bytes, record::END, 0, &[]);
    Ok(bytes)
}

/// Has the registers of the given vCPUs looked up; done when all are there.
///
/// # Errors
/// `Restart` until then, `Srch` for a domain that is being destroyed.
pub fn collect(domain: &Domain, vcpus: &[usize]) -> Result<(), Errno> {
    if domain.life.is_dying() {
        return Err(Errno::Srch);
    }
    let missing = vcpus
        .iter()
        .map(|&index| &domain.vcpus[index])
        .filter(|vcpu| !vcpu.has_registers());
    let mut complete = true;
    for vcpu in missing {
        complete = false;
        vcpu.want_registers();
    }
    if complete {
        Ok(())
    } else {
        Err(Errno::Restart)
    }
}

fn push(bytes: &mut Vec<u8>, kind: u16, instance: usize, payload: &[u8]) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend((instance as u16).to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
}

fn header() -> [u8; record::HEADER_SIZE] {
    const VERSION: u32 = 1;
    let mut bytes = [0; record::HEADER_SIZE];
    bytes[..4].copy_from_slice(&record::MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    let signature = core::arch::x86_64::__cpuid(1).eax;
    bytes[16..20].copy_from_slice(&signature.to_le_bytes());
    bytes[20..24].copy_from_slice(&(time::khz() as u32).to_le_bytes());
    bytes
}

/// Memory types as a vCPU begins with them. The hypervisor decides them, whatever a guest writes.
fn memory_types() -> [u8; record::MTRR_SIZE] {
    const FIXED: usize = 136;
    let mut bytes = [0; record::MTRR_SIZE];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, PAT);
    for index in 0..11 {
        put(FIXED + 8 * index, MTRR_FIXED);
    }
    put(224, MTRR_CAPABILITIES);
    put(232, MTRR_DEFAULT);
    bytes
}
