//! What other CPUs ask a CPU's vCPU loop to do.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use oxen_core::id::{CpuId, DomainId};
use spin::Mutex;

use crate::cpu::{self, MAX_CPUS};
use crate::domain::Domain;
use crate::interrupt::{local_apic, vectors};

/// A request.
pub enum Message {
    /// Make a vCPU of the domain, by index, and serve it.
    Take(Arc<Domain>, usize),
    /// Let go of all vCPUs of the domain.
    Release(DomainId),
}

static INBOXES: [Mutex<Vec<Message>>; MAX_CPUS] = [const { Mutex::new(Vec::new()) }; MAX_CPUS];

/// Asks a CPU.
pub fn post(cpu: CpuId, message: Message) {
    let (Some(inbox), Some(target)) = (INBOXES.get(cpu.index()), cpu::percpu::by_id(cpu)) else {
        return;
    };
    inbox.lock().push(message);
    target.has_mail.store(true, Ordering::Release);
    target.attention.store(true, Ordering::Release);
    if target.id() != cpu::current().id() {
        local_apic::send(target.apic_id(), vectors::ATTENTION);
    }
}

/// What the calling CPU was asked, in order.
pub fn take() -> Vec<Message> {
    let cpu = cpu::current();
    if !cpu.has_mail.swap(false, Ordering::AcqRel) {
        return Vec::new();
    }
    INBOXES
        .get(cpu.id().index())
        .map(|inbox| core::mem::take(&mut *inbox.lock()))
        .unwrap_or_default()
}
