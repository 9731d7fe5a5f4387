//! Data of one physical CPU, reached through GS.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use alloc::boxed::Box;
use oxen_core::id::CpuId;
use oxen_core::schedule::Attention;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;
use x86_64::registers::model_specific::GsBase;

use super::MAX_CPUS;
use super::descriptors::{Descriptors, HostTables};
use crate::interrupt::{self, local_apic, vectors};
use crate::time;

/// One CPU's data. Shared fields are atomics; the rest is set before the CPU is published.
#[repr(C)]
pub struct PerCpu {
    /// Its own address, so that `gs:0` finds it.
    this: *const PerCpu,
    id: CpuId,
    apic_id: u32,
    tables: UnsafeCell<Option<HostTables>>,
    /// What others want of it.
    attention: Attention,
    /// Whether the CPU waits in HLT or is about to.
    pub idle: AtomicBool,
    /// Ticks that it has waited with nothing to run.
    idle_ticks: AtomicU64,
    /// The TSC when it began to wait, while it does; else 0.
    idle_since: AtomicU64,
    /// Whether the CPU runs a guest or is about to: set before the last look at the map generation.
    pub in_guest: AtomicBool,
    /// Whether what it does was asked for by the vCPU that it runs, in a hypercall.
    pub is_asked: AtomicBool,
    /// Entries into guests.
    pub entries: AtomicU64,
    /// Interrupts taken, for the debug keys.
    pub interrupts: AtomicU64,
    /// NMIs taken.
    pub nmis: AtomicU32,
}

// SAFETY: the non-atomic fields are written only before the CPU is published, except `tables`, which only its own CPU
// writes, once, before it takes part in anything.
unsafe impl Sync for PerCpu {}
// SAFETY: as above; the self-pointer is an address, not ownership.
unsafe impl Send for PerCpu {}

static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

impl PerCpu {
    /// Makes a CPU's data and publishes it. The CPU itself then calls [`PerCpu::adopt`].
    pub fn publish(id: CpuId, apic_id: u32) -> &'static Self {
        let this = Box::leak(Box::new(Self {
            this: core::ptr::null(),
            id,
            apic_id,
            tables: UnsafeCell::new(None),
            attention: Attention::default(),
            idle: AtomicBool::new(false),
            idle_ticks: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            in_guest: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
            entries: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            nmis: AtomicU32::new(0),
        }));
        this.this = this;
        CPUS[id.index()].store(this, Ordering::Release);
        this
    }

    /// Ticks that it has waited with nothing to run, until now. One that stops waiting at this very moment may seem to have waited less.
    pub fn idle_ticks(&self) -> u64 {
        let past = self.idle_ticks.load(Ordering::Relaxed);
        match self.idle_since.load(Ordering::Relaxed) {
            0 => past,
            since => past + time::ticks().saturating_sub(since),
        }
    }

    /// Counts such; only the CPU itself does.
    pub fn add_idle(&self, ticks: u64) {
        self.idle_ticks.fetch_add(ticks, Ordering::Relaxed);
    }

    /// Waits as `halt` does, which is counted; only the CPU itself does.
    pub fn wait(&self, halt: impl FnOnce()) {
        let start = time::ticks();
        self.idle_since.store(start, Ordering::Relaxed);
        halt();
        self.idle_since.store(0, Ordering::Relaxed);
        self.add_idle(time::ticks() - start);
    }

    /// Loads descriptor tables, interrupt table and GS on the calling CPU, whose data this is.
    pub fn adopt(&'static self) {
        let descriptors = Box::leak(Box::new(Descriptors::new())).load();
        // SAFETY: only this CPU writes the field, once, and nobody reads it before.
        unsafe { *self.tables.get() = Some(descriptors.host_tables()) };
        GsBase::write(VirtAddr::new(self.this as u64));
        interrupt::table::load();
    }

    /// Makes this CPU, which may be the calling one, look at what was posted to the vCPU that it runs.
    pub fn look_up(&self) {
        let must_interrupt = self.attention.ask();
        self.interrupt_if(must_interrupt);
    }

    /// Makes this CPU, which may be the calling one, ask the scheduler what to do.
    pub fn reschedule(&self) {
        let must_interrupt = self.attention.ask_to_reschedule();
        self.interrupt_if(must_interrupt);
    }

    fn interrupt_if(&self, must_interrupt: bool) {
        if must_interrupt && self.id != current().id {
            local_apic::send(self.apic_id, vectors::ATTENTION);
        }
    }

    /// What others want of this CPU, the calling one.
    pub const fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The CPU's number.
    pub const fn id(&self) -> CpuId {
        self.id
    }

    /// The CPU's local APIC ID.
    pub const fn apic_id(&self) -> u32 {
        self.apic_id
    }
}

/// The calling CPU's data.
pub fn current() -> &'static PerCpu {
    let this: *const PerCpu;
    // SAFETY: GS points at this CPU's PerCpu since `adopt`, whose first field is its own address; it is never freed.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
        &*this
    }
}

/// The data of CPU `id`, if it is up.
pub fn by_id(id: CpuId) -> Option<&'static PerCpu> {
    let pointer = CPUS.get(id.index())?.load(Ordering::Acquire);
    // SAFETY: published pointers come from leaked boxes.
    unsafe { pointer.as_ref() }
}

/// Forgets a CPU that never came up.
pub fn retract(id: CpuId) {
    CPUS[id.index()].store(core::ptr::null_mut(), Ordering::Release);
}

/// All CPUs that are up or being brought up. Their numbers have no gaps.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    (0..MAX_CPUS).map_while(|id| by_id(CpuId(id as u16)))
}

/// What the hardware must restore when a guest exits on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct HostState {
    /// Page table root.
    pub cr3: u64,
    /// Linear address of the GDT.
    pub gdt_base: u64,
    /// Linear address of the IDT.
    pub idt_base: u64,
    /// Linear address of the TSS.
    pub tss_base: u64,
    /// Linear address of this CPU's data.
    pub gs_base: u64,
    /// Code selector.
    pub cs: u16,
    /// Data selector, for SS, DS and ES.
    pub ss: u16,
    /// Task selector.
    pub tr: u16,
}

/// The calling CPU's host state.
pub fn host_state() -> HostState {
    let cpu = current();
    // SAFETY: written once by this CPU in `adopt`.
    let tables = unsafe { (*cpu.tables.get()).as_ref() }
        .expect("a CPU adopts its data before it runs guests");
    HostState {
        cr3: Cr3::read().0.start_address().as_u64(),
        gdt_base: tables.gdt_base,
        idt_base: interrupt::table::base(),
        tss_base: tables.tss_base,
        gs_base: core::ptr::from_ref(cpu) as u64,
        cs: tables.selectors.code.0,
        ss: tables.selectors.data.0,
        tr: tables.selectors.task.0,
    }
}
