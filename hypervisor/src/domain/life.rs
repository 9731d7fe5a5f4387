//! How domains begin, rest and end.
//!
//! A new domain is paused. One that has shut down rests until the control domain destroys it; destruction goes in steps that
//! are each short, and ends when nobody holds a frame of it any more.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use oxen_abi::Errno;
use oxen_abi::event_channel::Virq;
use oxen_core::address::Gfn;
use oxen_core::event::Peer;
use oxen_core::grant::Limits;
use oxen_core::id::{DomainId, Port};
use oxen_core::memory::p2m::Kind;
use oxen_core::schedule::Affinity;
use oxen_core::time::RunstateKind;

use super::{Domain, p2m, registry};
use crate::cpu;
use crate::memory::{frames, heap, holds, scrub};
use crate::time::{self, Stretch};
use crate::vcpu::schedule;

/// Most vCPUs of a domain.
pub const MOST_VCPUS: u32 = 32;

/// A domain's condition.
#[derive(Debug, Default)]
pub struct Life {
    /// Pauses in force: it runs at none.
    pauses: AtomicU32,
    /// The reason of its shutdown plus one; 0 while it has not shut down.
    shutdown: AtomicU32,
    dying: AtomicBool,
    /// Most pages it may own.
    max_pages: AtomicU64,
    /// Up to which guest-physical address the last step of destruction has come: what others hold before it is left alone,
    /// or steps over much of that would not get on.
    released_to: AtomicU64,
}

impl Life {
    /// Of a domain that runs at once.
    pub fn running() -> Self {
        Self {
            max_pages: AtomicU64::new(u64::MAX),
            ..Self::default()
        }
    }

    /// Of a domain that waits for its builder.
    pub fn paused() -> Self {
        Self {
            pauses: AtomicU32::new(1),
            ..Self::default()
        }
    }

    /// Whether its vCPUs may run.
    pub fn may_run(&self) -> bool {
        self.pauses.load(Ordering::Acquire) == 0
            && self.shutdown.load(Ordering::Acquire) == 0
            && !self.is_dying()
    }

    /// Whether it is being destroyed.
    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Acquire)
    }

    /// Whether it is paused by the control domain.
    pub fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::Acquire) != 0
    }

    /// Why it shut down, if it has.
    pub fn shutdown_reason(&self) -> Option<u32> {
        self.shutdown.load(Ordering::Acquire).checked_sub(1)
    }

    /// Most pages it may own.
    pub fn max_pages(&self) -> u64 {
        self.max_pages.load(Ordering::Acquire)
    }

    /// Sets that.
    pub fn set_max_pages(&self, pages: u64) {
        self.max_pages.store(pages, Ordering::Release);
    }
}

/// Makes a paused domain without memory.
///
/// # Errors
/// `Exist` for a number in use, `Inval` for a bad number of vCPUs, `NoMem`.
pub fn create(
    asked: Option<DomainId>,
    vcpus: u32,
    handle: [u8; 16],
    grants: Limits,
) -> Result<Arc<Domain>, Errno> {
    if !(1..=MOST_VCPUS).contains(&vcpus) {
        return Err(Errno::Inval);
    }
    let vcpus = vcpus as usize;
    let make = |id| {
        let (format, gigabyte_pages) = p2m::machine_format();
        let map = p2m::DomainP2m::new(format, gigabyte_pages).ok_or(Errno::NoMem)?;
        let domain =
            Domain::new(id, false, Life::paused(), vcpus, map, grants).ok_or(Errno::NoMem)?;
        *domain.handle.lock() = handle;
        let domain = Arc::new(domain);
        schedule::admit(&domain, |_| Affinity::default()).map_err(|_| Errno::NoMem)?;
        Ok(domain)
    };
    registry::insert(asked, |id| {
        heap::with_room(Domain::blocks(vcpus), || make(id)).ok_or(Errno::NoMem)?
    })
}

const _: () = assert!(Domain::blocks(MOST_VCPUS as usize) <= heap::MOST_KEPT);

impl Domain {
    /// Stops all vCPUs; returns when none runs. Counted: as many [`Domain::unpause`] let it run again.
    pub fn pause(&self) {
        self.life.pauses.fetch_add(1, Ordering::SeqCst);
        self.stop_all();
        self.wait_for_rest();
    }

    /// Takes a pause back.
    ///
    /// # Errors
    /// `Inval` if there is none.
    pub fn unpause(&self) -> Result<(), Errno> {
        let less = |pauses: u32| pauses.checked_sub(1);
        self.life
            .pauses
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .map_err(|_| Errno::Inval)?;
        self.kick_all();
        Ok(())
    }

    /// The domain has come to its end by itself: it rests, and the control domain is told. The first reason counts.
    pub fn shut_down(&self, reason: u32) {
        let first = self.life.shutdown.compare_exchange(
            0,
            reason.saturating_add(1),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if first.is_ok() {
            self.stop_all();
            tell_control_domain();
        }
    }

    /// A step of destruction.
    ///
    /// # Errors
    /// `Restart` as long as there is more to do.
    pub fn destroy(&self) -> Result<(), Errno> {
        if !self.life.dying.swap(true, Ordering::AcqRel) {
            self.stop_all();
            self.drop_claim();
            let cleared = self.control.clearing.lock().take();
            drop(cleared);
            // Those who have mapped frames of it must hear of it, or it lingers.
            tell_control_domain();
        }
        // All of them are asked to go before one is waited for.
        let left = self.vcpus.iter().filter(|vcpu| !schedule::dismiss(vcpu));
        if left.count() > 0 {
            return Err(Errno::Restart);
        }
        self.events
            .close_all(|port, peer| self.tell_far_end(port, peer));
        self.drop_mapped_grants()?;
        self.release_memory()?;
        self.finish_if_empty();
        Ok(())
    }

    /// Nothing is kept for it any more.
    fn drop_claim(&self) {
        // Taking a claim back cannot fail.
        let _ = frames::claim(&mut self.control.claim.lock(), 0, 0);
    }

    /// A port of this domain was closed that led to another domain's.
    pub fn tell_far_end(&self, port: Port, peer: Peer) {
        if let Some(far) = registry::get(peer.domain) {
            let own_end = Peer {
                domain: self.id,
                port,
            };
            far.events.unbind_from(peer.port, own_end);
        }
    }

    /// Gives frames back that nobody maps, as many as a stretch has time for.
    fn release_memory(&self) -> Result<(), Errno> {
        let stretch = Stretch::begin();
        let mut own = self.own.lock();
        let mut from = self.life.released_to.load(Ordering::Relaxed);
        // What is held stays in the set, so that the next range begins behind it.
        while let Some(range) = own.first_from(from) {
            let (mut first, end) = (range.start >> 12, range.end >> 12);
            from = range.end;
            while first < end {
                own.reserve()?;
                if stretch.is_over() {
                    let here = Gfn(first).address().0;
                    self.life.released_to.store(here, Ordering::Relaxed);
                    return Err(Errno::Restart);
                }
                let mut p2m = self.p2m.lock();
                let Some(span) = p2m.lookup_span(Gfn(first)) else {
                    own.remove(Gfn(first).bytes(1));
                    first += 1;
                    continue;
                };
                let count = span.rest_from(Gfn(first)).min(end - first);
                let mapping = span.mapping(Gfn(first));
                let is_ram = mapping.kind == Kind::Ram;
                // As far as the first frame that somebody uses; that one alone is left.
                let held = holds::first_held(mapping.frame, count).filter(|_| is_ram);
                if held == Some(0) {
                    first += 1;
                    continue;
                }
                let count = held.unwrap_or(count);
                p2m.unmap(Gfn(first), count).map_err(|_| Errno::NoMem)?;
                own.remove(Gfn(first).bytes(count));
                if is_ram {
                    frames::give_back_run(mapping.frame, count);
                }
                first += count;
            }
        }
        self.life.released_to.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// With the last frame the domain is gone.
    pub fn finish_if_empty(&self) {
        let held = self.vcpus.iter().any(|vcpu| vcpu.seat.exists());
        if self.life.is_dying() && !held && self.own.lock().total() == 0 {
            registry::remove(self);
            scrub::call_idle_cpus();
            tell_control_domain();
        }
    }

    /// Nanoseconds that its vCPUs have run.
    pub fn cpu_time(&self) -> u64 {
        let now = time::nanos();
        self.vcpus
            .iter()
            .map(|vcpu| vcpu.runstate.lock().spent(RunstateKind::Running, now))
            .sum()
    }

    fn kick_all(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.kick());
    }

    /// It may not run any more: makes those leave the guest that are in it.
    fn stop_all(&self) {
        for vcpu in &self.vcpus {
            vcpu.kick();
            vcpu.stop_waiting();
        }
    }

    /// Waits until no other CPU runs a vCPU of it.
    fn wait_for_rest(&self) {
        let me = cpu::current().id();
        for vcpu in &self.vcpus {
            while vcpu.runs_on().is_some_and(|cpu| cpu != me) {
                core::hint::spin_loop();
            }
        }
    }
}

fn tell_control_domain() {
    if let Some(dom0) = registry::dom0() {
        dom0.raise_global_virq(Virq::DOM_EXC);
    }
}
