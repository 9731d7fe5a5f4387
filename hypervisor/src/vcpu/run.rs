//! The loop of each CPU: choose a vCPU, run it, handle its exits; idle when none can run.
//!
//! vCPUs are bound to CPUs when made, and each CPU serves its own in turn. All state in [`Running`] is touched only here,
//! by one CPU; others post to [`VcpuShared`] and set the CPU's attention flag.

use core::sync::atomic::Ordering;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use oxen_abi::sched::reason;
use oxen_core::time::RunstateKind;

use super::inbox::{self, Message};
use super::shared::Switch;
use super::{Running, Wait, exits, interrupts, snapshot};
use crate::cpu::{self, debug_registers};
use crate::domain::{Domain, crash, p2m};
use crate::interrupt::{self, local_apic};
use crate::time;
use crate::virt::{Exit, Missing, StartRegisters, Vcpu};

/// How long a vCPU runs while others wait, in milliseconds.
const SLICE_MILLIS: u64 = 2;

/// Serves vCPUs for ever: the given ones, and those that the inbox brings, which `make` makes.
pub fn serve<H: Vcpu>(mut vcpus: Vec<Running<H>>, make: &Make<'_, H>) -> ! {
    let mut current: Option<usize> = None;
    loop {
        take_attention();
        for message in inbox::take() {
            obey(&mut vcpus, &mut current, message, make);
        }
        for vcpu in &mut vcpus {
            wake_if_due(vcpu);
        }
        let Some(next) = choose(&vcpus, current) else {
            idle(&vcpus);
            continue;
        };
        if current != Some(next) {
            if let Some(previous) = current.and_then(|index| vcpus.get_mut(index)) {
                unload(previous);
            }
            load(&mut vcpus[next]);
            current = Some(next);
        }
        let contended = vcpus.iter().filter(|vcpu| vcpu.may_run()).count() > 1;
        // Those that are ready wait for their turn, whatever their timers say.
        let others = next_deadline(vcpus.iter().filter(|vcpu| vcpu.wait != Wait::Ready));
        run(&mut vcpus[next], contended, others);
    }
}

/// Makes a vCPU of a domain, by index, for the calling CPU.
pub type Make<'a, H> = dyn Fn(&Arc<Domain>, usize) -> Result<Running<H>, Missing> + 'a;

fn obey<H: Vcpu>(
    vcpus: &mut Vec<Running<H>>,
    current: &mut Option<usize>,
    message: Message,
    make: &Make<'_, H>,
) {
    match message {
        Message::Take(domain, index) => match make(&domain, index) {
            Ok(vcpu) => vcpus.push(vcpu),
            Err(missing) => {
                log::error!(
                    "domain {} vcpu {index} cannot be made: {missing}",
                    domain.id
                );
                domain.life.released();
                domain.shut_down(reason::CRASH);
            }
        },
        Message::Release(id) => {
            // Places in the list change: nobody stays loaded.
            if let Some(index) = current.take() {
                unload(&mut vcpus[index]);
            }
            let leaving = vcpus.extract_if(.., |vcpu| vcpu.domain.id == id);
            for vcpu in leaving.collect::<Vec<_>>() {
                set_runstate(&vcpu, RunstateKind::Offline);
                let domain = vcpu.domain.clone();
                drop(vcpu);
                domain.life.released();
            }
        }
    }
}

/// Runs one vCPU until it waits, its slice ends or another may have become ready.
fn run<H: Vcpu>(vcpu: &mut Running<H>, contended: bool, others: Option<u64>) {
    if let Some(start) = vcpu.start.take() {
        vcpu.hardware.start(&mut vcpu.gprs, &start);
        vcpu.hardware.set_apic_mode(vcpu.apic.mode());
    }
    set_runstate(vcpu, RunstateKind::Running);
    let slice_end = contended.then(|| time::ticks() + time::ticks_in_millis(SLICE_MILLIS));
    let limit = earliest(slice_end, others);
    let mut armed = None;
    vcpu.shared().runs.store(true, Ordering::SeqCst);
    while vcpu.may_run() && !core::mem::take(&mut vcpu.yields) {
        // From here to the entry nothing posted is missed: whoever posts after the flag is cleared also interrupts us.
        if take_attention() {
            // It may concern another vCPU, which may be ready now.
            control(vcpu);
            break;
        }
        interrupts::prepare(vcpu);
        let deadline = earliest(limit, own_deadline(vcpu));
        if deadline.is_some_and(|deadline| deadline <= time::ticks()) {
            interrupts::fire_timer(vcpu);
            if limit.is_some_and(|limit| limit <= time::ticks()) {
                break;
            }
            continue;
        }
        if armed != Some(deadline) {
            arm(vcpu, deadline);
            armed = Some(deadline);
        }
        let exit = enter(vcpu);
        vcpu.shared().exits.count(&exit);
        match exit {
            Exit::ExternalInterrupt => {
                interrupt::window();
                armed = None;
            }
            other => exits::handle(vcpu, other),
        }
    }
    vcpu.shared().runs.store(false, Ordering::SeqCst);
    let state = match vcpu.wait {
        Wait::Ready => RunstateKind::Runnable,
        Wait::Halted | Wait::Polling => RunstateKind::Blocked,
        Wait::Down => RunstateKind::Offline,
    };
    set_runstate(vcpu, state);
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
    let exit = vcpu.hardware.enter(&mut vcpu.gprs);
    cpu.entries.fetch_add(1, Ordering::Relaxed);
    cpu.in_guest.store(false, Ordering::Release);
    exit
}

fn take_attention() -> bool {
    let cpu = cpu::current();
    // The load keeps the common case free of a locked instruction.
    cpu.attention.load(Ordering::Relaxed) && cpu.attention.swap(false, Ordering::AcqRel)
}

/// Obeys INIT and start-up interrupts, and what `vcpu_op` asked for.
fn control<H: Vcpu>(vcpu: &mut Running<H>) {
    snapshot::answer(vcpu);
    if !vcpu.shared().control_waits() {
        return;
    }
    if vcpu.shared().take_init() {
        vcpu.apic.reset();
        vcpu.shared().set_up(false);
        vcpu.wait = Wait::Down;
    }
    // One that arrives at a running vCPU is lost, as on hardware.
    let startup = vcpu.shared().take_startup();
    if let (Wait::Down, Some(vector)) = (vcpu.wait, startup) {
        vcpu.start(Box::new(StartRegisters::sipi(vector)));
    }
    match vcpu.shared().take_switch() {
        Some(Switch::Off) => crash::vcpu_down(vcpu),
        Some(Switch::On) if vcpu.wait == Wait::Down => match vcpu.shared().take_context() {
            Some(context) => vcpu.start(context),
            // It goes on behind the call that stopped it.
            None => {
                vcpu.shared().set_up(true);
                vcpu.wait = Wait::Ready;
            }
        },
        Some(Switch::On) | None => {}
    }
}

/// Makes a waiting vCPU ready if what it waits for has come.
fn wake_if_due<H: Vcpu>(vcpu: &mut Running<H>) {
    control(vcpu);
    let due = match vcpu.wait {
        Wait::Ready | Wait::Down => false,
        Wait::Halted => interrupts::halt_ends(vcpu),
        Wait::Polling => interrupts::poll_ends(vcpu),
    };
    if due {
        vcpu.wait = Wait::Ready;
        set_runstate(vcpu, RunstateKind::Runnable);
    }
}

/// The next ready vCPU after the current one.
fn choose<H: Vcpu>(vcpus: &[Running<H>], current: Option<usize>) -> Option<usize> {
    let start = current.map_or(0, |index| index + 1);
    (0..vcpus.len())
        .map(|i| (start + i) % vcpus.len())
        .find(|&i| vcpus[i].may_run())
}

/// Waits for an interrupt with the timer armed for whichever vCPU is due first.
fn idle<H: Vcpu>(vcpus: &[Running<H>]) {
    local_apic::set_timer(next_deadline(vcpus.iter()));
    let cpu = cpu::current();
    // Interrupts are off from this test to the halt, so that an attention set in between still ends the halt.
    if !cpu.attention.load(Ordering::Acquire) {
        cpu.idle.store(true, Ordering::Relaxed);
        interrupt::wait();
        cpu.idle.store(false, Ordering::Relaxed);
    }
}

/// TSC value at which the first of the given vCPUs has something due.
fn next_deadline<'a, H: Vcpu + 'a>(vcpus: impl Iterator<Item = &'a Running<H>>) -> Option<u64> {
    vcpus.filter_map(|vcpu| own_deadline(vcpu)).min()
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

fn set_runstate<H: Vcpu>(vcpu: &Running<H>, state: RunstateKind) {
    interrupts::publish_runstate(vcpu, state);
}
