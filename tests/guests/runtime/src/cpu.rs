//! Instructions, and the interrupt table.

use core::arch::asm;

use crate::events::CALLBACK_VECTOR;

/// Vector of the interrupt that the local APIC is asked for.
pub const APIC_VECTOR: u8 = 0x40;
const PROTECTION_VECTOR: u8 = 13;
const MSR_GS_BASE: u32 = 0xC000_0101;

unsafe extern "C" {
    fn callback_entry();
    fn apic_interrupt_entry();
    fn protection_entry();
}

/// What the interrupt handlers note of their vCPU; `entry.S` knows the layout.
#[repr(C)]
pub struct PerVcpu {
    /// Address of its `vcpu_info`.
    info: u64,
    /// TSC at the last event callback.
    callback_ticks: u64,
    /// TSC at the last interrupt from the local APIC.
    apic_ticks: u64,
    /// #GP so far.
    protection_faults: u64,
}

static mut STATES: [PerVcpu; 2] = [const {
    PerVcpu {
        info: 0,
        callback_ticks: 0,
        apic_ticks: 0,
        protection_faults: 0,
    }
}; 2];

fn state(vcpu: usize) -> *mut PerVcpu {
    (&raw mut STATES).cast::<PerVcpu>().wrapping_add(vcpu & 1)
}

/// Gives the calling vCPU its state.
pub fn set_state(vcpu: usize, info: u64) {
    let place = state(vcpu);
    // SAFETY: the vCPU's own, before it takes interrupts.
    unsafe { (&raw mut (*place).info).write_volatile(info) };
    write_msr(MSR_GS_BASE, place as u64);
}

/// TSC at a vCPU's last event callback; 0 since [`clear_ticks`].
pub fn callback_ticks(vcpu: usize) -> u64 {
    // SAFETY: a word that only handlers write.
    unsafe { (&raw const (*state(vcpu)).callback_ticks).read_volatile() }
}

/// TSC at a vCPU's last interrupt from the local APIC.
pub fn apic_ticks(vcpu: usize) -> u64 {
    // SAFETY: a word that only handlers write.
    unsafe { (&raw const (*state(vcpu)).apic_ticks).read_volatile() }
}

/// #GP that the vCPU has had.
pub fn protection_faults(vcpu: usize) -> u64 {
    // SAFETY: a word that only the handler writes.
    unsafe { (&raw const (*state(vcpu)).protection_faults).read_volatile() }
}

/// Forgets both times.
pub fn clear_ticks(vcpu: usize) {
    let place = state(vcpu);
    // SAFETY: words that only handlers write besides.
    unsafe {
        (&raw mut (*place).callback_ticks).write_volatile(0);
        (&raw mut (*place).apic_ticks).write_volatile(0);
    }
}

/// Loads the interrupt table with the handlers of this library.
pub fn load_interrupt_table() {
    let handlers: [(u8, unsafe extern "C" fn()); 3] = [
        (CALLBACK_VECTOR, callback_entry),
        (APIC_VECTOR, apic_interrupt_entry),
        (PROTECTION_VECTOR, protection_entry),
    ];
    let handlers = handlers.map(|(vector, handler)| (vector, handler as *const () as u64));
    // SAFETY: each is one.
    unsafe { load_handlers(handlers) };
}

/// Loads the interrupt table that all vCPUs share, with these handlers in it by vector and address.
///
/// # Safety
/// Each address is that of an interrupt handler.
pub unsafe fn load_handlers(handlers: impl IntoIterator<Item = (u8, u64)>) {
    static mut TABLE: [[u64; 2]; 256] = [[0; 2]; 256];
    for (vector, address) in handlers {
        let gate = [
            address & 0xFFFF | 8 << 16 | 0x8E00 << 32 | (address >> 16 & 0xFFFF) << 48,
            address >> 32,
        ];
        // SAFETY: inside the table; each vCPU writes the same.
        unsafe {
            (&raw mut TABLE)
                .cast::<[u64; 2]>()
                .add(vector.into())
                .write_volatile(gate)
        };
    }
    let pointer = Descriptor {
        limit: 4095,
        base: &raw const TABLE as u64,
    };
    // SAFETY: the table is static and complete for what is let in.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
}

#[repr(C, packed)]
struct Descriptor {
    limit: u16,
    base: u64,
}

/// The TSC.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CPUID, whatever it says.
#[inline]
pub fn cpuid(leaf: u32) {
    core::hint::black_box(core::arch::x86_64::__cpuid(leaf));
}

/// This domain's number, as the hypervisor's CPUID leaf 4 has it.
pub fn domain() -> u16 {
    core::arch::x86_64::__cpuid_count(oxen_abi::cpuid::BASE + 4, 0).ecx as u16
}

/// Lets interrupts in, or keeps them out.
#[inline]
pub fn interrupts(on: bool) {
    // SAFETY: what may come has a handler.
    unsafe {
        if on {
            asm!("sti", "nop", options(nostack));
        } else {
            asm!("cli", options(nostack));
        }
    }
}

/// Halts with interrupts let in.
#[inline]
pub fn halt() {
    // SAFETY: as for `interrupts`.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Writes a zero byte to a port.
#[inline]
pub fn out(port: u16) {
    // SAFETY: used for ports where it has no effect that matters.
    unsafe { asm!("out dx, al", in("dx") port, in("al") 0u8, options(nomem, nostack)) };
}

/// RDMSR; zero if it raised #GP.
#[inline]
pub fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect; #GP is passed over.
    unsafe {
        asm!("rdmsr", in("ecx") index, inout("eax") 0 => low, inout("edx") 0 => high, options(nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR; nothing happens if it raised #GP.
#[inline]
pub fn write_msr(index: u32, value: u64) {
    // SAFETY: used for registers of the local APIC and GS base, with values that the guest can live with.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

/// Forgets cached translations.
#[inline]
pub fn flush_translations() {
    // SAFETY: loads what is there already.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}

/// Sets CR0.TS and clears it again.
#[inline]
pub fn toggle_task_switched() {
    // SAFETY: no FPU instruction runs in between.
    unsafe {
        asm!("mov {0}, cr0", "or {0}, 8", "mov cr0, {0}", "clts", out(reg) _, options(nostack));
    }
}
