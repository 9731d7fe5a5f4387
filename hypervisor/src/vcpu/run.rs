//! The loop of each CPU: ask the scheduler for a vCPU, run it, handle its exits; idle when none can run.
//!
//! All state in [`Running`] is touched by one CPU at a time, which has it from the vCPU's seat. Others post to
//! [`VcpuShared`](super::VcpuShared) and make the CPU look up.
//!
//! An exit that another entry follows takes no lock: the scheduler is asked when its time has come, when it asks for that
//! itself, and when the vCPU waits.

use core::sync::atomic::Ordering;

use alloc::boxed::Box;
use oxen_core::schedule::Handle;
use oxen_core::time::RunstateKind;

use super::schedule::{self, scheduler};
use super::seat::Seat;
use super::shared::Switch;
use super::{Running, Wait, counters, exits, interrupts, snapshot};
use crate::cpu::{self, PerCpu, debug_registers};
use crate::domain::{crash, p2m};
use crate::interrupt::{self, local_apic};
use crate::memory::scrub;
use crate::time;
use crate::virt::{Exit, StartRegisters, Vcpu};

/// Runs vCPUs for ever.
pub fn serve<H: Vcpu>() -> ! {
    let cpu = cpu::current();
    // It stays loaded while the CPU idles, until another takes its place or another CPU asks for it.
    let mut loaded: Option<Box<Running<H>>> = None;
    loop {
        let timers = schedule::fire_timers();
        // Behind the timers: whom they wake, the scheduler knows of when it is asked below.
        cpu.attention().begin_round();
        if loaded
            .as_ref()
            .is_some_and(|vcpu| vcpu.shared().seat.is_wanted())
        {
            give_up(&mut loaded);
        }
        let decision = scheduler().pick(cpu.id(), time::nanos());
        for other in decision.interrupt.iter().filter_map(cpu::percpu::by_id) {
            other.reschedule();
        }
        let limit = earliest(decision.until.map(time::ticks_at), timers);
        match decision.run {
            Some(next) => {
                if let Some(vcpu) = switch_to(&mut loaded, &next) {
                    run(cpu, vcpu, limit);
                }
            }
            None => {
                // One that could go on is on its way to another CPU.
                if loaded.as_ref().is_some_and(|vcpu| vcpu.wait == Wait::Ready) {
                    give_up(&mut loaded);
                }
                idle(cpu, limit);
            }
        }
    }
}

/// Loads a vCPU in place of the one that is; `None` if it ends.
fn switch_to<'a, H: Vcpu>(
    loaded: &'a mut Option<Box<Running<H>>>,
    next: &Handle,
) -> Option<&'a mut Running<H>> {
    let seat = next.attachment().downcast_ref::<Seat>()?;
    let is_next = |vcpu: &Running<H>| core::ptr::eq(&*vcpu.shared().seat, seat);
    if !loaded.as_deref().is_some_and(is_next) {
        // Before another's state is waited for: that CPU may wait for this one's.
        give_up(loaded);
        let mut vcpu = seat.take()?;
        load(&mut *vcpu);
        *loaded = Some(vcpu);
    }
    loaded.as_deref_mut()
}

/// Saves the loaded vCPU, so that any CPU can take it.
fn give_up<H: Vcpu>(loaded: &mut Option<Box<Running<H>>>) {
    let Some(mut vcpu) = loaded.take() else {
        return;
    };
    if vcpu.wait == Wait::Ready && vcpu.domain.life.may_run() {
        interrupts::set_runstate(&vcpu, RunstateKind::Runnable);
    }
    unload(&mut *vcpu);
    let seat = vcpu.shared().seat.clone();
    seat.put_back(vcpu);
}

/// Runs one vCPU until it waits, the scheduler wants to be asked, or a timer of another is due at `limit`, a TSC value.
fn run<H: Vcpu>(cpu: &PerCpu, vcpu: &mut Running<H>, limit: Option<u64>) {
    if let Some(timer) = vcpu.set_timer.take() {
        schedule::cancel_timer(timer);
    }
    vcpu.shared().set_runs_on(Some(cpu.id()));
    look(vcpu);
    if vcpu.may_run() {
        if vcpu.start.is_some() {
            begin(vcpu);
        }
        interrupts::set_runstate(vcpu, RunstateKind::Running);
        stay_in_guest(cpu, vcpu, limit);
    }
    vcpu.shared().set_runs_on(None);
    // What was posted until now only made this CPU look up; from now on it wakes.
    look(vcpu);
    come_to_rest(cpu, vcpu);
}

/// Takes the registers that it was given to start with.
#[cold]
fn begin<H: Vcpu>(vcpu: &mut Running<H>) {
    if let Some(start) = vcpu.start.take() {
        vcpu.hardware.start(&mut vcpu.gprs, &start);
        vcpu.hardware.set_apic_mode(vcpu.apic.mode());
    }
}

/// Enters the guest again and again.
fn stay_in_guest<H: Vcpu>(cpu: &PerCpu, vcpu: &mut Running<H>, limit: Option<u64>) {
    let mut armed = None;
    while vcpu.may_run() && !vcpu.yields {
        // From here to the entry nothing posted is missed: whoever posts after the flag is cleared also interrupts us.
        if cpu.attention().take() {
            control(vcpu);
            if cpu.attention().must_reschedule() || vcpu.start.is_some() {
                return;
            }
            continue;
        }
        let now = time::ticks();
        if limit.is_some_and(|limit| limit <= now) {
            return;
        }
        interrupts::fire_timer(vcpu, now);
        interrupts::prepare(vcpu);
        let deadline = earliest(limit, own_deadline(vcpu));
        if armed != Some(deadline) {
            arm(vcpu, deadline);
            armed = Some(deadline);
        }
        let exit = enter(vcpu);
        vcpu.shared().counters.exit(&exit);
        if matches!(exit, Exit::ExternalInterrupt) {
            interrupt::window();
            armed = None;
        }
        exits::handle(vcpu, exit);
    }
}

/// Tells the scheduler what the vCPU does now that it has left the guest.
fn come_to_rest<H: Vcpu>(cpu: &PerCpu, vcpu: &mut Running<H>) {
    let now = time::nanos();
    let yields = core::mem::take(&mut vcpu.yields);
    if vcpu.may_run() {
        if yields {
            scheduler().yield_now(cpu.id(), now);
        }
        return;
    }
    if let Some(at) = own_deadline(vcpu) {
        vcpu.set_timer = schedule::set_timer(&vcpu.domain, vcpu.index, at);
    }
    let state = match vcpu.wait {
        Wait::Halted | Wait::Polling => RunstateKind::Blocked,
        // Its domain rests.
        Wait::Ready | Wait::Down => RunstateKind::Offline,
    };
    let mut runstate = vcpu.shared().runstate.lock();
    // One that was woken meanwhile stays, and looks again when it is picked.
    let changed = scheduler().block(cpu.id(), now) && runstate.enter(state, now);
    drop(runstate);
    if changed {
        vcpu.domain.publish_runstate(vcpu.index);
    }
}

/// Obeys what was posted to the vCPU, and makes it ready if what it waits for has come.
fn look<H: Vcpu>(vcpu: &mut Running<H>) {
    control(vcpu);
    let due = match vcpu.wait {
        Wait::Ready | Wait::Down => false,
        Wait::Halted => interrupts::halt_ends(vcpu),
        Wait::Polling => interrupts::poll_ends(vcpu),
    };
    if due {
        vcpu.wait = Wait::Ready;
    }
}

/// Obeys INIT and start-up interrupts, and what `vcpu_op` asked for.
fn control<H: Vcpu>(vcpu: &mut Running<H>) {
    snapshot::attend(vcpu);
    if !vcpu.shared().control_waits() {
        return;
    }
    let sent = vcpu.shared().take_start_up();
    if sent.init {
        vcpu.apic.reset();
        vcpu.shared().set_up(false);
        vcpu.wait = Wait::Down;
    }
    // One that arrives at a running vCPU is lost, as on hardware.
    if let (Wait::Down, Some(vector)) = (vcpu.wait, sent.startup) {
        vcpu.start(StartRegisters::sipi(vector));
    }
    match vcpu.shared().take_switch() {
        Some(Switch::Off) => crash::vcpu_down(vcpu),
        Some(Switch::On) if vcpu.wait == Wait::Down => match vcpu.shared().take_context() {
            Some(context) => vcpu.start(*context),
            // It goes on behind the call that stopped it.
            None => {
                vcpu.shared().set_up(true);
                vcpu.wait = Wait::Ready;
            }
        },
        Some(Switch::On) | None => {}
    }
}

/// Enters the guest with no translation cached that has been taken away.
fn enter<H: Vcpu>(vcpu: &mut Running<H>) -> Exit {
    let cpu = cpu::current();
    cpu.in_guest.store(true, Ordering::SeqCst);
    let generation = p2m::generation();
    if vcpu.map_generation != generation {
        vcpu.map_generation = generation;
        vcpu.hardware.flush_nested();
    }
    let start = counters::clock();
    let exit = vcpu.hardware.enter(&mut vcpu.gprs);
    vcpu.shared().counters.left_guest_mode(start);
    cpu.entries.fetch_add(1, Ordering::Relaxed);
    cpu.in_guest.store(false, Ordering::Release);
    exit
}

/// Scrubs memory if there is some to be, or else waits for an interrupt, until `limit` at the latest, a TSC value.
fn idle(cpu: &PerCpu, limit: Option<u64>) {
    if scrub::is_due() && scrubbed(cpu, limit) {
        // What came meanwhile was taken, so that nothing would end a halt.
        return;
    }
    local_apic::set_timer(limit);
    // Interrupts are off from this test to the halt, so that an attention set in between still ends the halt.
    if cpu.attention().is_undisturbed() {
        cpu.idle.store(true, Ordering::Relaxed);
        interrupt::wait();
        cpu.idle.store(false, Ordering::Relaxed);
    }
}

/// Scrubs memory until there is something else to do or nothing left; whether there was any.
#[cold]
fn scrubbed(cpu: &PerCpu, limit: Option<u64>) -> bool {
    let start = time::ticks();
    let mut now = start;
    while cpu.attention().is_undisturbed()
        && limit.is_none_or(|limit| now < limit)
        && scrub::clear_piece()
    {
        interrupt::window();
        now = time::ticks();
    }
    cpu.add_idle(now - start);
    now != start
}

/// TSC value at which the vCPU has something due; never for one that is down, which has nobody to take it.
fn own_deadline<H: Vcpu>(vcpu: &Running<H>) -> Option<u64> {
    if vcpu.wait == Wait::Down {
        return None;
    }
    let shared = vcpu.shared();
    let timer = shared.timer.ticks();
    if vcpu.wait == Wait::Polling {
        return earliest(timer, shared.poll_deadline.ticks());
    }
    timer
}

fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Makes guest mode end at `deadline`, by the hardware's own timer where it has one.
fn arm<H: Vcpu>(vcpu: &mut Running<H>, deadline: Option<u64>) {
    if !vcpu.hardware.set_deadline(deadline) {
        local_apic::set_timer(deadline);
    }
}

fn load<H: Vcpu>(vcpu: &mut Running<H>) {
    vcpu.hardware.load();
    vcpu.fpu.load();
    debug_registers::load(&vcpu.debug_registers);
}

fn unload<H: Vcpu>(vcpu: &mut Running<H>) {
    vcpu.debug_registers = debug_registers::save();
    vcpu.fpu.save();
    vcpu.hardware.unload();
}
