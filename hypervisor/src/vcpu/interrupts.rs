//! Events and interrupts on their way into a vCPU.
//!
//! Order at each entry: NMI, the event-channel callback (it bypasses the local APIC), the local APIC's highest vector.

use oxen_abi::event_channel::Virq;
use oxen_core::apic::{Effect, LocalApic};
use oxen_core::time::RunstateKind;

use super::{Running, VcpuShared, Wait};
use crate::domain::Domain;
use crate::platform::irq;
use crate::time;
use crate::virt::Vcpu;

/// Brings the vCPU's hardware state up to date with what waits for it.
pub fn prepare<H: Vcpu>(vcpu: &mut Running<H>) {
    let Running {
        domain,
        shared,
        hardware,
        apic,
        ..
    } = vcpu;
    shared.posted.drain_into(apic);
    let by_cpu = hardware.delivers_interrupts();
    if by_cpu {
        hand_over(hardware, apic);
    } else {
        apic.set_tpr(hardware.task_priority());
    }

    if shared.nmi_waits() {
        if hardware.can_nmi() && shared.take_nmi() {
            hardware.inject_nmi();
            return;
        }
        hardware.want_nmi_window(true);
    }

    let upcall = callback(domain, shared);
    let from_apic = if by_cpu { None } else { apic.deliverable() };
    let Some(vector) = upcall.or(from_apic) else {
        if !by_cpu {
            hardware.set_task_priority(apic.tpr(), apic.highest_requested());
        }
        hardware.want_interrupt_window(false);
        return;
    };
    if hardware.can_interrupt() {
        if upcall.is_none() {
            apic.begin_service(vector);
        }
        hardware.inject_interrupt(vector);
        // Another one may follow as soon as this one's handler lets it.
        let more = upcall.is_some() && from_apic.is_some();
        hardware.want_interrupt_window(more);
    } else {
        hardware.want_interrupt_window(true);
    }
}

/// Tells a CPU that delivers the local APIC's interrupts by itself what is new there.
fn hand_over<H: Vcpu>(hardware: &mut H, apic: &mut LocalApic) {
    if let Some(modes) = apic.changed_modes() {
        hardware.set_end_exits(&modes);
    }
    if let Some(vector) = apic.highest_requested() {
        hardware.set_requested(vector);
    }
}

/// The vector of the domain's callback, if it is due: events through the local APIC have been posted to it.
fn callback(domain: &Domain, shared: &VcpuShared) -> Option<u8> {
    let own = shared.upcall_vector().is_some();
    domain
        .callback_vector()
        .filter(|_| !own && domain.events.upcall_pending(shared.id))
}

/// Whenever a vCPU is about to wait: a CPU that delivers interrupts by itself may have put some into its local APIC's page,
/// such as one that it sent itself, which nobody has looked at yet.
pub fn before_wait<H: Vcpu>(vcpu: &mut Running<H>) {
    if vcpu.hardware.delivers_interrupts() {
        vcpu.apic.look_again();
    }
}

/// Whether a halted vCPU must run again: something waits that it can take (HLT was executed with interrupts on).
pub fn halt_ends<H: Vcpu>(vcpu: &mut Running<H>) -> bool {
    fire_timer(vcpu, time::ticks());
    let Running {
        domain,
        shared,
        apic,
        ..
    } = vcpu;
    shared.posted.drain_into(apic);
    shared.nmi_waits() || apic.deliverable().is_some() || callback(domain, shared).is_some()
}

/// Whether a polling vCPU must run again: one of its ports is pending, an interrupt waits, or the time has come.
pub fn poll_ends<H: Vcpu>(vcpu: &mut Running<H>) -> bool {
    let now = time::ticks();
    fire_timer(vcpu, now);
    let shared = vcpu.shared();
    let timed_out = shared.poll_deadline.is_due(now);
    let over = timed_out || !vcpu.domain.events.is_polling(shared.id) || halt_ends(vcpu);
    if over {
        let shared = vcpu.shared();
        shared.poll_deadline.clear();
        vcpu.domain.events.end_poll(shared.id);
    }
    over
}

/// Raises the timer VIRQ if the one-shot timer has come at `now`, a TSC value.
pub fn fire_timer<H: Vcpu>(vcpu: &Running<H>, now: u64) {
    let shared = vcpu.shared();
    if shared.timer.is_due(now) {
        shared.timer.clear();
        vcpu.domain
            .events
            .raise_virq(shared.id, Virq::TIMER, &*vcpu.domain);
    }
}

/// Carries out what a register write of the local APIC asks for.
pub fn apply<H: Vcpu>(vcpu: &mut Running<H>, effect: Effect) {
    match effect {
        // The register may have been one that changes how the local APIC is addressed.
        Effect::None => {
            *vcpu.shared().identity.lock() = vcpu.apic.identity();
            vcpu.hardware.set_task_priority(vcpu.apic.tpr(), None);
        }
        Effect::Ipi(ipi) => vcpu.domain.send_ipi(vcpu.index, &ipi),
        Effect::Eoi { vector, level } => {
            if level {
                irq::guest_eoi(&vcpu.domain, vector);
            }
        }
    }
}

/// Accounts a change of run state and shows it to the guest where it asked for that.
pub fn set_runstate<H: Vcpu>(vcpu: &Running<H>, state: RunstateKind) {
    debug_assert!(state != RunstateKind::Running || vcpu.wait == Wait::Ready);
    let changed = vcpu.shared().runstate.lock().enter(state, time::nanos());
    if changed {
        vcpu.domain.publish_runstate(vcpu.index);
    }
}
