//! Bringing up the other CPUs.

use core::sync::atomic::{AtomicBool, Ordering};

use oxen_core::acpi::Cpu;
use oxen_core::address::HostPhys;
use oxen_core::id::CpuId;

use super::percpu::{self, PerCpu};
use super::{MAX_CPUS, features};
use crate::interrupt::local_apic;
use crate::memory::{layout, paging};
use crate::time;

/// Where the trampoline is copied: free RAM on every PC, and given back to dom0 with its content afterwards.
const TRAMPOLINE: HostPhys = HostPhys(0x8000);
const PAGE: usize = 4096;
/// How long a CPU may take to answer, in milliseconds.
const PATIENCE: u64 = 200;

static ALIVE: AtomicBool = AtomicBool::new(false);
static GO: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_gdt_base: u8;
    static trampoline_far: u8;
    static trampoline_cr3: u8;
    static trampoline_stack: u8;
    static trampoline_argument: u8;
    static trampoline_entry: u8;
}

/// Starts every CPU of `cpus` but this one; each waits until [`release`]. Returns how many are up.
pub fn start(cpus: &[Cpu]) -> usize {
    let own = local_apic::id();
    let mut saved = [0; PAGE];
    let page = layout::direct_map(TRAMPOLINE);
    // SAFETY: low RAM in the direct map, which nobody else uses before dom0 is built.
    unsafe { core::ptr::copy_nonoverlapping(page, saved.as_mut_ptr(), PAGE) };
    paging::set_low_identity(true);
    let mut next = 1;
    for cpu in cpus.iter().filter(|cpu| cpu.apic_id != own) {
        if next >= MAX_CPUS {
            log::warn!(
                "more than {MAX_CPUS} CPUs: the one with APIC ID {} stays unused",
                cpu.apic_id
            );
            continue;
        }
        let data = PerCpu::publish(CpuId(next as u16), cpu.apic_id);
        if start_one(data) {
            next += 1;
        } else {
            log::warn!("the CPU with APIC ID {} did not start", cpu.apic_id);
            percpu::retract(CpuId(next as u16));
        }
    }
    paging::set_low_identity(false);
    // SAFETY: as above; no CPU runs the trampoline any more.
    unsafe { core::ptr::copy_nonoverlapping(saved.as_ptr(), page, PAGE) };
    next
}

/// Lets the waiting CPUs go on.
pub fn release() {
    GO.store(true, Ordering::Release);
}

fn start_one(cpu: &'static PerCpu) -> bool {
    ALIVE.store(false, Ordering::Release);
    prepare_trampoline(cpu);
    let page = (TRAMPOLINE.0 >> 12) as u8;
    // SDM vol. 3, 9.4.4.1: INIT, 10 ms, start-up, 200 µs, start-up.
    local_apic::send_init(cpu.apic_id());
    time::wait_micros(10_000);
    for _ in 0..2 {
        local_apic::send_startup(cpu.apic_id(), page);
        time::wait_micros(200);
        if ALIVE.load(Ordering::Acquire) {
            return true;
        }
    }
    let deadline = time::ticks() + time::ticks_in_millis(PATIENCE);
    while time::ticks() < deadline {
        if ALIVE.load(Ordering::Acquire) {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Copies the trampoline and fills in where the CPU goes.
fn prepare_trampoline(cpu: &'static PerCpu) {
    let start = &raw const trampoline_start;
    let length = (&raw const trampoline_end) as usize - start as usize;
    let copy = layout::direct_map(TRAMPOLINE);
    let field = |symbol: *const u8| symbol as usize - start as usize;
    // The trampoline's symbols are physical: the image's low part is in the direct map as well.
    let source = layout::direct_map(HostPhys(start as u64));
    let relocate = |at: usize, by: u64| {
        // SAFETY: `at` is a 32-bit field inside the copy.
        unsafe {
            let place = copy.add(at).cast::<u32>();
            place.write_unaligned(place.read_unaligned() + by as u32);
        }
    };
    let put = |at: usize, value: u64| {
        // SAFETY: `at` is a 64-bit field inside the copy.
        unsafe { copy.add(at).cast::<u64>().write_unaligned(value) }
    };
    // SAFETY: both ranges are in the direct map and the trampoline is shorter than its page.
    unsafe { core::ptr::copy_nonoverlapping(source, copy, length) };
    relocate(field(&raw const trampoline_gdt_base), TRAMPOLINE.0);
    relocate(field(&raw const trampoline_far), TRAMPOLINE.0);
    put(field(&raw const trampoline_cr3), paging::root().address().0);
    put(
        field(&raw const trampoline_stack),
        paging::new_stack(paging::STACK_SIZE) - 8,
    );
    put(
        field(&raw const trampoline_argument),
        core::ptr::from_ref(cpu) as u64,
    );
    put(
        field(&raw const trampoline_entry),
        secondary_entry as *const () as u64,
    );
}

/// First Rust code of a secondary CPU, on its own stack.
extern "C" fn secondary_entry(cpu: &'static PerCpu) -> ! {
    features::enable_on_this_cpu();
    cpu.adopt();
    local_apic::init_on_this_cpu();
    ALIVE.store(true, Ordering::Release);
    while !GO.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    crate::secondary(cpu.id())
}
