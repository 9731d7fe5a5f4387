//! A vCPU's state for the control domain, and state that it gives: asked for and given by any CPU, taken and loaded by the one on
//! which the vCPU is loaded, outside of the guest.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use oxen_core::context::lapic;
use oxen_core::context::{Cpu, Event, Extended, Mtrr, VcpuContext};
use oxen_core::registers::reset;
use spin::Mutex;

use super::{Running, VcpuShared, Wait};
use crate::cpu::debug_registers;
use crate::virt::{Exception, Vcpu};

/// What there is to be known of a vCPU.
pub struct Saved {
    /// Registers, of one that has been started.
    pub cpu: Option<Box<Cpu>>,
    /// A CPU_XSAVE record; empty on a CPU without XSAVE.
    pub extended: Vec<u8>,
    /// APIC base MSR.
    pub apic_base: u64,
    /// The local APIC's registers.
    pub apic_registers: Box<[u8; lapic::REGISTERS]>,
    /// Memory types.
    pub mtrr: Mtrr,
}

/// A vCPU's place for the question and the answer, and for state that it is to take.
#[derive(Default)]
pub struct Snapshot {
    wanted: AtomicBool,
    taken: Mutex<Option<Box<Saved>>>,
    given: Mutex<Option<Box<VcpuContext>>>,
    is_given: AtomicBool,
}

impl VcpuShared {
    /// The state, if it has been taken since [`VcpuShared::want_state`].
    pub fn take_state(&self) -> Option<Box<Saved>> {
        self.snapshot.taken.lock().take()
    }

    /// Whether it has been.
    pub fn has_state(&self) -> bool {
        self.snapshot.taken.lock().is_some()
    }

    /// Asks for the state: the CPU that runs the vCPU, or the one where it is woken for that, paused or not.
    pub fn want_state(&self) {
        if !self.snapshot.wanted.swap(true, Ordering::AcqRel) {
            self.kick();
        }
    }

    /// Whether somebody waits for the state.
    pub fn is_state_wanted(&self) -> bool {
        self.snapshot.wanted.load(Ordering::Acquire)
    }

    /// Gives the vCPU of a domain that rests state to go on with, on top of what it has been given and has not loaded yet.
    pub fn give_state(&self, context: VcpuContext) {
        let has_registers = context.cpu.is_some();
        {
            let mut given = self.snapshot.given.lock();
            match &mut *given {
                Some(before) => before.merge(context),
                None => *given = Some(Box::new(context)),
            }
            self.snapshot.is_given.store(true, Ordering::Release);
        }
        // What was taken before is old, and what was asked of it before counts no more. Its domain rests until this is done; once it
        // runs, another of its vCPUs may start this one before the state has been loaded.
        self.snapshot.taken.lock().take();
        self.take_start_up();
        self.take_switch();
        self.take_context();
        self.set_up(has_registers);
        self.kick();
    }

    /// Whether there is such state.
    pub fn has_given_state(&self) -> bool {
        self.snapshot.is_given.load(Ordering::Acquire)
    }

    fn take_given_state(&self) -> Option<Box<VcpuContext>> {
        let mut given = self.snapshot.given.lock();
        self.snapshot.is_given.store(false, Ordering::Release);
        given.take()
    }
}

/// Loads what was given, and answers if somebody has asked. Called by the CPU on which the vCPU is loaded, outside of the guest.
pub fn attend<H: Vcpu>(vcpu: &mut Running<H>) {
    if vcpu.shared().has_given_state()
        && let Some(context) = vcpu.shared().take_given_state()
    {
        load(vcpu, *context);
    }
    if !vcpu.shared().snapshot.wanted.load(Ordering::Relaxed) {
        return;
    }
    let saved = take(vcpu);
    let place = &vcpu.shared().snapshot;
    *place.taken.lock() = Some(Box::new(saved));
    place.wanted.store(false, Ordering::Release);
}

fn take<H: Vcpu>(vcpu: &mut Running<H>) -> Saved {
    // One that has not started has no registers yet, but for what it will start with.
    let is_started = vcpu.wait != Wait::Down || vcpu.shared().is_initialised();
    let registers = is_started.then(|| {
        let mut registers = vcpu.hardware.registers(&vcpu.gprs);
        registers.debug = debug_registers::save();
        registers
    });
    let event = vcpu
        .hardware
        .queued_event()
        .and_then(|(bits, code)| Event::from_bits(bits, code));
    let cpu = registers.map(|registers| {
        Box::new(Cpu {
            registers,
            legacy: Some(vcpu.fpu.legacy()),
            event,
        })
    });
    let kept = &vcpu.kept;
    let mtrr = Mtrr {
        pat: registers.map_or(reset::PAT, |registers| registers.pat),
        variable: kept.mtrr_variable,
        fixed: kept.mtrr_fixed,
        default: kept.mtrr_default,
    };
    vcpu.shared.posted.drain_into(&mut vcpu.apic);
    if !vcpu.hardware.delivers_interrupts() {
        vcpu.apic.set_tpr(vcpu.hardware.task_priority());
    }
    Saved {
        cpu,
        extended: vcpu.fpu.record(),
        apic_base: vcpu.apic.apic_base(),
        apic_registers: Box::new(vcpu.apic.registers()),
        mtrr,
    }
}

/// What the vCPU was about to do, or to wait for, is over; not what was asked of it since the state was given.
fn load<H: Vcpu>(vcpu: &mut Running<H>, context: VcpuContext) {
    vcpu.start = None;
    vcpu.yields = false;
    let shared = vcpu.shared();
    shared.poll_deadline.clear();
    vcpu.domain.events.end_poll(shared.id);
    match &context.cpu {
        Some(cpu) => load_cpu(vcpu, cpu, &context),
        None => vcpu.wait = Wait::Down,
    }
    if let Some(Extended { xcr0, area }) = &context.extended {
        vcpu.fpu.replace(*xcr0, area);
    }
    if let Some(mtrr) = &context.mtrr {
        let kept = &mut vcpu.kept;
        kept.mtrr_variable = mtrr.variable;
        kept.mtrr_fixed = mtrr.fixed;
        kept.mtrr_default = mtrr.default;
    }
    let registers = context.apic_registers.as_deref();
    if context.apic_base.is_some() || registers.is_some() {
        vcpu.apic.load(context.apic_base, registers);
    }
    if context.cpu.is_some() {
        vcpu.hardware.set_apic_mode(vcpu.apic.mode());
        vcpu.hardware.set_task_priority(vcpu.apic.tpr(), None);
    }
    *vcpu.shared().identity.lock() = vcpu.apic.identity();
}

fn load_cpu<H: Vcpu>(vcpu: &mut Running<H>, cpu: &Cpu, context: &VcpuContext) {
    let mut registers = cpu.registers;
    if let Some(mtrr) = &context.mtrr {
        registers.pat = mtrr.pat;
    }
    vcpu.hardware.set_registers(&mut vcpu.gprs, &registers);
    vcpu.hardware.set_msrs(&registers.msrs);
    debug_registers::load(&registers.debug);
    match cpu.event {
        Some(Event::Interrupt(vector)) => vcpu.hardware.inject_interrupt(vector),
        Some(Event::Nmi) => vcpu.hardware.inject_nmi(),
        Some(Event::Exception(vector, error_code)) => {
            vcpu.hardware.raise(Exception { vector, error_code });
        }
        None => {}
    }
    vcpu.fpu.replace_legacy(cpu.legacy.as_ref());
    vcpu.wait = Wait::Ready;
}
