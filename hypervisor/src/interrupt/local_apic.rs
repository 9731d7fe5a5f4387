//! The physical local APIC: acknowledgement, inter-processor interrupts and the one deadline timer of each CPU.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use oxen_core::address::HostPhys;
use raw_cpuid::CpuId;

use super::vectors;
use crate::cpu::msr;
use crate::memory::paging::{self, Permission};
use crate::time;

const APIC_BASE: u32 = 0x1B;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const TSC_DEADLINE: u32 = 0x6E0;

/// Registers by their xAPIC page offset (SDM vol. 3, 11.4.1); the x2APIC MSR is `0x800 + offset / 16`.
mod register {
    pub const ID: u32 = 0x20;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const EOI: u32 = 0xB0;
    pub const SPURIOUS: u32 = 0xF0;
    pub const ERROR_STATUS: u32 = 0x280;
    pub const ICR_LOW: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3E0;
}

const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 4 << 8;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

static X2APIC: AtomicBool = AtomicBool::new(false);
static DEADLINE_MODE: AtomicBool = AtomicBool::new(false);
static PAGE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Timer counts in 2^32 TSC ticks, for local APICs without TSC-deadline mode.
static COUNTS_PER_2_32_TICKS: AtomicU64 = AtomicU64::new(0);

/// Finds out how the machine's local APICs are reached. Once, on the boot CPU.
pub fn probe() {
    let features = CpuId::new().get_feature_info();
    let x2apic = features.as_ref().is_some_and(|f| f.has_x2apic());
    DEADLINE_MODE.store(
        features.as_ref().is_some_and(|f| f.has_tsc_deadline()),
        Ordering::Relaxed,
    );
    X2APIC.store(x2apic, Ordering::Relaxed);
    enable();
    if !x2apic {
        let base = HostPhys(msr::read(APIC_BASE) & 0x000F_FFFF_FFFF_F000);
        PAGE.store(
            paging::map_device(base, 4096, Permission::Device),
            Ordering::Relaxed,
        );
    }
}

/// One line for the log.
pub fn describe() -> (&'static str, &'static str) {
    (
        if X2APIC.load(Ordering::Relaxed) {
            "x2APIC"
        } else {
            "xAPIC"
        },
        if DEADLINE_MODE.load(Ordering::Relaxed) {
            "TSC deadline"
        } else {
            "one-shot"
        },
    )
}

/// Turns the calling CPU's local APIC on, in the mode that all use.
fn enable() {
    let mut base = msr::read(APIC_BASE) | BASE_ENABLE;
    if X2APIC.load(Ordering::Relaxed) {
        base |= BASE_X2APIC;
    }
    // SAFETY: enabling the local APIC in the mode that CPUID offers; nothing of it is in use yet on this CPU.
    unsafe { msr::write(APIC_BASE, base) };
}

/// Turns the calling CPU's local APIC on, timer masked, LINT0 closed, LINT1 as NMI.
pub fn init_on_this_cpu() {
    enable();
    write(register::TASK_PRIORITY, 0);
    write(register::LVT_LINT0, LVT_MASKED);
    write(register::LVT_LINT1, LVT_NMI);
    write(register::LVT_ERROR, vectors::APIC_ERROR.into());
    write(register::SPURIOUS, 1 << 8 | u32::from(vectors::SPURIOUS));
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    let mode = if DEADLINE_MODE.load(Ordering::Relaxed) {
        TIMER_TSC_DEADLINE
    } else {
        0
    };
    write(register::LVT_TIMER, mode | u32::from(vectors::TIMER));
    write(register::ERROR_STATUS, 0);
    // What the firmware left in service would block everything below it.
    for _ in 0..256 {
        end_of_interrupt();
    }
}

/// Measures the timer's rate against the TSC where it does not follow the TSC itself.
pub fn calibrate() {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        return;
    }
    write(register::LVT_TIMER, LVT_MASKED);
    write(register::TIMER_INITIAL, u32::MAX);
    let (start, start_count) = (time::ticks(), read(register::TIMER_CURRENT));
    let wait = time::ticks_in_millis(10);
    while time::ticks() - start < wait {
        core::hint::spin_loop();
    }
    let (end, end_count) = (time::ticks(), read(register::TIMER_CURRENT));
    write(register::TIMER_INITIAL, 0);
    let counts = u64::from(start_count.wrapping_sub(end_count));
    COUNTS_PER_2_32_TICKS.store((counts << 32) / (end - start).max(1), Ordering::Relaxed);
    write(register::LVT_TIMER, vectors::TIMER.into());
}

/// The calling CPU's APIC ID.
pub fn id() -> u32 {
    let raw = read(register::ID);
    if X2APIC.load(Ordering::Relaxed) {
        raw
    } else {
        raw >> 24
    }
}

/// Ends the service of the interrupt in progress.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Arms the calling CPU's timer for the moment the TSC reaches `deadline`, or disarms it.
pub fn set_timer(deadline: Option<u64>) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: arming the timer only leads to an interrupt on a vector of ours. Zero disarms; no real deadline is 0.
        unsafe { msr::write(TSC_DEADLINE, deadline.unwrap_or(0)) };
        return;
    }
    let count = deadline.map_or(0, |deadline| {
        let ticks = deadline.saturating_sub(time::ticks());
        let counts =
            (u128::from(ticks) * u128::from(COUNTS_PER_2_32_TICKS.load(Ordering::Relaxed))) >> 32;
        // At least one count, so that a deadline in the past fires; at most the register: the loop re-arms.
        u32::try_from(counts).unwrap_or(u32::MAX).max(1)
    });
    write(register::TIMER_INITIAL, count);
}

/// Sends a fixed interrupt to one CPU.
pub fn send(apic_id: u32, vector: u8) {
    command(apic_id, u32::from(vector) | 1 << 14);
}

/// Sends an NMI to one CPU.
pub fn send_nmi(apic_id: u32) {
    command(apic_id, 4 << 8 | 1 << 14);
}

/// Sends INIT to one CPU.
pub fn send_init(apic_id: u32) {
    command(apic_id, 5 << 8 | 1 << 14);
}

/// Sends a start-up interrupt: the CPU begins in real mode at `page << 12`.
pub fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, 6 << 8 | 1 << 14 | u32::from(page));
}

/// Logs what the error status register holds.
pub fn report_error() {
    write(register::ERROR_STATUS, 0);
    log::warn!(
        "local APIC error status {:#x}",
        read(register::ERROR_STATUS)
    );
}

fn command(apic_id: u32, low: u32) {
    const DELIVERY_PENDING: u32 = 1 << 12;
    if X2APIC.load(Ordering::Relaxed) {
        // Earlier stores must be visible to the target before it is interrupted (SDM vol. 3, 11.12.3).
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: interrupts go only to vectors and CPUs that the hypervisor handles.
        unsafe {
            msr::write(
                0x800 + register::ICR_LOW / 16,
                u64::from(apic_id) << 32 | u64::from(low),
            )
        };
        return;
    }
    while read(register::ICR_LOW) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(register::ICR_HIGH, apic_id << 24);
    write(register::ICR_LOW, low);
}

fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        return msr::read(0x800 + register / 16) as u32;
    }
    // SAFETY: the page is the local APIC's, mapped uncached by `probe`; the offset is a register's.
    unsafe {
        PAGE.load(Ordering::Relaxed)
            .add(register as usize)
            .cast::<u32>()
            .read_volatile()
    }
}

fn write(register: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: callers write values that keep interrupts going to vectors of ours.
        unsafe { msr::write(0x800 + register / 16, value.into()) };
        return;
    }
    // SAFETY: as for `read`.
    unsafe {
        PAGE.load(Ordering::Relaxed)
            .add(register as usize)
            .cast::<u32>()
            .write_volatile(value)
    };
}
