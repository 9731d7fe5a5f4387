//! MSRs that are intercepted, by ranges in one table. What is not in it raises #GP, as a CPU does; a domain that was made
//! with relaxed MSRs reads 0 there instead.

use oxen_core::apic::GeneralProtection;
use oxen_core::context::mtrr;

use super::exits::skip;
use super::{Running, interrupts};
use crate::hypercall::page;
use crate::time;
use crate::virt::{Gprs, Vcpu};

/// Registers that guests set and read back, without further effect.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Default memory type, MSR 0x2FF.
    pub mtrr_default: u64,
    /// Variable ranges, MSRs 0x200–0x20F.
    pub mtrr_variable: [u64; 16],
    /// Fixed ranges in the order of [`MTRR_FIXED`].
    pub mtrr_fixed: [u64; 11],
    misc_enable: u64,
}

/// Fixed-range MTRRs.
const MTRR_FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F,
];

impl Default for Kept {
    fn default() -> Self {
        const ENABLED_WRITE_BACK: u64 = 0x806;
        const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        // Fast strings on; BTS and PEBS unavailable.
        const MISC_ENABLE: u64 = 1 | 1 << 11 | 1 << 12;
        Self {
            mtrr_default: ENABLED_WRITE_BACK,
            mtrr_variable: [0; 16],
            mtrr_fixed: [ALL_WRITE_BACK; 11],
            misc_enable: MISC_ENABLE,
        }
    }
}

type Read<H> = fn(&mut Running<H>, u32) -> Result<u64, GeneralProtection>;
type Write<H> = fn(&mut Running<H>, u32, u64) -> Result<(), GeneralProtection>;

/// A range of MSRs with its handlers.
struct Entry<H> {
    first: u32,
    last: u32,
    read: Read<H>,
    write: Write<H>,
}

const fn entry<H>(first: u32, last: u32, read: Read<H>, write: Write<H>) -> Entry<H> {
    Entry {
        first,
        last,
        read,
        write,
    }
}

/// RDMSR: the answer goes to EDX:EAX.
pub fn read<H: Vcpu>(vcpu: &mut Running<H>) {
    let index = vcpu.gprs.0[Gprs::RCX] as u32;
    let result = match vcpu.hardware.read_kept_msr(index) {
        Some(value) => Ok(value),
        None => match find::<H>(index) {
            Some(entry) => (entry.read)(vcpu, index),
            None if vcpu.domain.control.relaxed_msrs() => Ok(0),
            None => Err(GeneralProtection),
        },
    };
    match result {
        Ok(value) => {
            vcpu.gprs.set_edx_eax(value);
            skip(vcpu);
        }
        Err(GeneralProtection) => refuse(vcpu, "RDMSR", index),
    }
}

/// WRMSR of EDX:EAX.
pub fn write<H: Vcpu>(vcpu: &mut Running<H>) {
    let index = vcpu.gprs.0[Gprs::RCX] as u32;
    let value = vcpu.gprs.edx_eax();
    let result = match vcpu.hardware.write_kept_msr(index, value) {
        Some(true) => Ok(()),
        Some(false) => Err(GeneralProtection),
        None => match find::<H>(index) {
            Some(entry) => (entry.write)(vcpu, index, value),
            None if vcpu.domain.control.relaxed_msrs() => Ok(()),
            None => Err(GeneralProtection),
        },
    };
    match result {
        Ok(()) => skip(vcpu),
        Err(GeneralProtection) => refuse(vcpu, "WRMSR", index),
    }
}

fn refuse<H: Vcpu>(vcpu: &mut Running<H>, what: &str, index: u32) {
    log::debug!(
        "{what} {index:#x} by {} vcpu {}: #GP",
        vcpu.domain.id,
        vcpu.shared().id
    );
    vcpu.general_protection();
}

fn find<H: Vcpu>(index: u32) -> Option<&'static Entry<H>> {
    Table::<H>::ENTRIES
        .iter()
        .find(|entry| (entry.first..=entry.last).contains(&index))
}

struct Table<H>(core::marker::PhantomData<H>);

impl<H: Vcpu> Table<H> {
    /// The most frequent first.
    const ENTRIES: &'static [Entry<H>] = &[
        entry(0x800, 0x8FF, read_x2apic, write_x2apic),
        entry(
            0x1B,
            0x1B,
            |vcpu, _| Ok(vcpu.apic.apic_base()),
            write_apic_base,
        ),
        entry(0x10, 0x10, |_, _| Ok(time::ticks()), ignore),
        entry(0x17, 0x17, zero, refuse_write),
        entry(0x3A, 0x3A, |_, _| Ok(1), refuse_write),
        entry(0x8B, 0x8B, zero, ignore),
        entry(0xFE, 0xFE, |_, _| Ok(mtrr::CAPABILITIES), refuse_write),
        entry(
            0x1A0,
            0x1A0,
            |vcpu, _| Ok(vcpu.kept.misc_enable),
            write_misc_enable,
        ),
        entry(0x200, 0x20F, read_variable_mtrr, write_variable_mtrr),
        entry(0x250, 0x26F, read_fixed_mtrr, write_fixed_mtrr),
        entry(
            0x2FF,
            0x2FF,
            |vcpu, _| Ok(vcpu.kept.mtrr_default),
            write_mtrr_default,
        ),
        entry(0x4000_0000, 0x4000_0000, zero, page::write_msr),
        // AMD: system configuration, top of memory, northbridge and core configuration: nothing set, writes dropped.
        entry(0xC001_0010, 0xC001_0010, zero, ignore),
        // HWCR: TscFreqSel tells that the TSC runs at the P0 rate.
        entry(0xC001_0015, 0xC001_0015, |_, _| Ok(1 << 24), ignore),
        entry(0xC001_001A, 0xC001_001F, zero, ignore),
        entry(0xC001_0055, 0xC001_0055, zero, ignore),
        entry(0xC001_0058, 0xC001_0058, zero, ignore),
        entry(0xC001_0061, 0xC001_0071, zero, ignore),
        entry(0xC001_0140, 0xC001_0141, zero, ignore),
        // LS_CFG … DE_CFG: LFENCE serializes.
        entry(0xC001_1020, 0xC001_1028, zero, ignore),
        entry(0xC001_1029, 0xC001_1029, |_, _| Ok(1 << 1), ignore),
        entry(0xC001_102A, 0xC001_102D, zero, ignore),
    ];
}

fn zero<H>(_: &mut Running<H>, _: u32) -> Result<u64, GeneralProtection> {
    Ok(0)
}

fn ignore<H>(_: &mut Running<H>, _: u32, _: u64) -> Result<(), GeneralProtection> {
    Ok(())
}

fn refuse_write<H>(_: &mut Running<H>, _: u32, _: u64) -> Result<(), GeneralProtection> {
    Err(GeneralProtection)
}

fn read_x2apic<H: Vcpu>(vcpu: &mut Running<H>, index: u32) -> Result<u64, GeneralProtection> {
    vcpu.apic.read_msr(index)
}

fn write_x2apic<H: Vcpu>(
    vcpu: &mut Running<H>,
    index: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    let effect = vcpu.apic.write_msr(index, value)?;
    interrupts::apply(vcpu, effect);
    Ok(())
}

fn write_apic_base<H: Vcpu>(
    vcpu: &mut Running<H>,
    _: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    vcpu.apic.set_apic_base(value)?;
    vcpu.hardware.set_apic_mode(vcpu.apic.mode());
    *vcpu.shared().identity.lock() = vcpu.apic.identity();
    Ok(())
}

fn write_misc_enable<H>(
    vcpu: &mut Running<H>,
    _: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    const FAST_STRINGS: u64 = 1;
    vcpu.kept.misc_enable = vcpu.kept.misc_enable & !FAST_STRINGS | value & FAST_STRINGS;
    Ok(())
}

fn read_variable_mtrr<H>(vcpu: &mut Running<H>, index: u32) -> Result<u64, GeneralProtection> {
    Ok(vcpu.kept.mtrr_variable[(index - 0x200) as usize])
}

/// Memory types are the hypervisor's matter: the guest reads back what it wrote, and nothing else changes.
fn write_variable_mtrr<H>(
    vcpu: &mut Running<H>,
    index: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    vcpu.kept.mtrr_variable[(index - 0x200) as usize] = value;
    Ok(())
}

fn read_fixed_mtrr<H>(vcpu: &mut Running<H>, index: u32) -> Result<u64, GeneralProtection> {
    let slot = MTRR_FIXED
        .iter()
        .position(|&msr| msr == index)
        .ok_or(GeneralProtection)?;
    Ok(vcpu.kept.mtrr_fixed[slot])
}

fn write_fixed_mtrr<H>(
    vcpu: &mut Running<H>,
    index: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    let slot = MTRR_FIXED
        .iter()
        .position(|&msr| msr == index)
        .ok_or(GeneralProtection)?;
    vcpu.kept.mtrr_fixed[slot] = value;
    Ok(())
}

fn write_mtrr_default<H>(
    vcpu: &mut Running<H>,
    _: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    const ALLOWED: u64 = 0xCFF;
    if value & !ALLOWED != 0 {
        return Err(GeneralProtection);
    }
    vcpu.kept.mtrr_default = value;
    Ok(())
}
