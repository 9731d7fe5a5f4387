//! The FIFO ABI's state of one domain: its event words, and a queue for each vCPU and priority.
//!
//! A port that becomes pending is linked to the end of the queue of its vCPU and priority, unless it is masked or in a
//! queue already. The guest follows the links from the control block's heads and takes ports out as it goes; the
//! hypervisor only remembers where each queue ends, and learns from the word there whether the guest has got so far.
//! Every change by the hypervisor happens with the domain's channel lock held; the guest's own may come at any time.

mod operations;
mod queue;

use crate::sync::atomic::{AtomicU32, Ordering};
use alloc::vec::Vec;
use core::ops::Range;

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo::{
    ARRAY_PAGES, LINKED, MASKED, PENDING, PRIORITIES, WORDS_PER_PAGE,
};

use super::abi::Change;
use super::two_level::VcpuInfo;
use crate::guest_page::GuestPage;
use crate::id::{Port, VcpuId};
use queue::{ControlBlock, Priority, append};

/// The queues of one vCPU.
#[derive(Clone, Default)]
struct Queues {
    /// `None` until the guest has given one.
    control: Option<ControlBlock>,
    /// The port that was last linked to each; `None` if it is certain that the queue is empty.
    tails: [Option<Port>; PRIORITIES],
}

/// What must come from the guest before an event of a port can be announced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Nothing,
    /// The page with the port's word, so that it can be made pending.
    Word,
    /// The control block of its vCPU, so that it can be linked.
    ControlBlock,
}

/// A port as this ABI sees it.
#[derive(Clone, Copy)]
struct PortState {
    priority: Priority,
    /// The queue that it was last linked to. Outlives the channel: a closed port may still be in there.
    last: Option<(VcpuId, Priority)>,
    awaits: Awaits,
}

impl PortState {
    const NEW: Self = Self {
        priority: Priority::DEFAULT,
        last: None,
        awaits: Awaits::Nothing,
    };
}

/// See the module.
pub struct Fifo {
    array: Vec<GuestPage>,
    queues: Vec<Queues>,
    ports: Vec<PortState>,
}

impl Fifo {
    /// No event words and no control blocks yet, for that many vCPUs.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn new(vcpus: usize) -> Result<Self, Errno> {
        let mut queues = Vec::new();
        queues.try_reserve_exact(vcpus).map_err(|_| Errno::NoMem)?;
        queues.resize(vcpus, Queues::default());
        Ok(Self {
            array: Vec::new(),
            queues,
            ports: Vec::new(),
        })
    }

    /// Makes room for the port's state.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn cover(&mut self, port: Port) -> Result<(), Errno> {
        let missing = (port.index() + 1).saturating_sub(self.ports.len());
        self.ports.try_reserve(missing).map_err(|_| Errno::NoMem)?;
        self.ports
            .resize(self.ports.len() + missing, PortState::NEW);
        Ok(())
    }

    /// Takes a vCPU's control block.
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `Inval` if it has one.
    fn set_control_block(&mut self, vcpu: VcpuId, block: ControlBlock) -> Result<(), Errno> {
        let queues = self.queues.get_mut(vcpu.index()).ok_or(Errno::NoEnt)?;
        if queues.control.is_some() {
            return Err(Errno::Inval);
        }
        queues.control = Some(block);
        Ok(())
    }

    /// Takes the next page of event words; returns the ports whose words it holds.
    ///
    /// # Errors
    /// `NoSpc` if all ports have theirs, `NoMem`.
    fn expand(&mut self, page: GuestPage) -> Result<Range<u32>, Errno> {
        if self.array.len() >= ARRAY_PAGES {
            return Err(Errno::NoSpc);
        }
        self.array.try_reserve(1).map_err(|_| Errno::NoMem)?;
        self.array.push(page);
        let end = (self.array.len() * WORDS_PER_PAGE) as u32;
        Ok(end - WORDS_PER_PAGE as u32..end)
    }

    /// Sets the priority of an open port's next events.
    fn set_priority(&mut self, port: Port, priority: Priority) {
        if let Some(state) = self.ports.get_mut(port.index()) {
            state.priority = priority;
        }
    }

    /// Remembers an event until the guest has given what is needed to announce it.
    pub fn hold(&mut self, port: Port) {
        self.set_awaits(port, Awaits::Word);
    }

    /// Announces what was held for the port, as far as that is possible now. True if the vCPU must be told.
    fn release(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> bool {
        match self.awaits(port) {
            Awaits::Nothing => false,
            Awaits::Word => self.set_pending(port, vcpu, info) == Change::Upcall,
            Awaits::ControlBlock => self.announce(port, vcpu, info),
        }
    }

    /// See [`super::abi::Abi::set_pending`].
    pub fn set_pending(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> Change {
        let Some(word) = self.word(port) else {
            let was_pending = self.awaits(port) == Awaits::Word;
            self.set_awaits(port, Awaits::Word);
            return Self::change(was_pending);
        };
        // Sequentially consistent against pollers, see `Poll`.
        let before = word.fetch_or(PENDING, Ordering::SeqCst);
        self.set_awaits(port, Awaits::Nothing);
        if before & (MASKED | LINKED) == 0 && self.link(port, vcpu, info) {
            Change::Upcall
        } else {
            Self::change(before & PENDING != 0)
        }
    }

    const fn change(was_pending: bool) -> Change {
        if was_pending {
            Change::None
        } else {
            Change::Pending
        }
    }

    /// See [`super::abi::Abi::unmask`].
    pub fn unmask(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> bool {
        if let Some(word) = self.word(port) {
            word.fetch_and(!MASKED, Ordering::AcqRel);
        }
        self.announce(port, vcpu, info)
    }

    /// Whether the port is pending, masked or not, or will be as soon as it has a word.
    pub fn is_pending(&self, port: Port) -> bool {
        match self.word(port) {
            Some(word) => word.load(Ordering::SeqCst) & PENDING != 0,
            None => self.awaits(port) == Awaits::Word,
        }
    }

    /// Whether the port is masked: so are those that have no word.
    pub fn is_masked(&self, port: Port) -> bool {
        self.word(port)
            .is_none_or(|word| word.load(Ordering::SeqCst) & MASKED != 0)
    }

    /// Forgets a closed port's event and priority. It stays in its queue, as only the guest can take it out; the guest
    /// passes over ports that are not pending.
    pub fn closed(&mut self, port: Port) {
        if let Some(word) = self.word(port) {
            word.fetch_and(!PENDING, Ordering::AcqRel);
        }
        self.set_awaits(port, Awaits::Nothing);
        self.set_priority(port, Priority::DEFAULT);
    }

    /// Links a port that waits for that. True if the vCPU must be told.
    fn announce(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> bool {
        let word = self
            .word(port)
            .map_or(0, |word| word.load(Ordering::Acquire));
        word & (PENDING | MASKED | LINKED) == PENDING && self.link(port, vcpu, info)
    }

    /// Links a port that is in no queue to the end of its own. True if the vCPU must be told.
    fn link(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> bool {
        let Some(state) = self.ports.get(port.index()).copied() else {
            return false;
        };
        let control = self
            .queues
            .get(vcpu.index())
            .and_then(|queues| queues.control);
        let Some(control) = control else {
            self.set_awaits(port, Awaits::ControlBlock);
            return false;
        };
        self.set_awaits(port, Awaits::Nothing);
        let linked_before = self
            .word(port)
            .is_none_or(|word| word.fetch_or(LINKED, Ordering::AcqRel) & LINKED != 0);
        if linked_before {
            return false;
        }
        // The queue that it was the last of is empty. Its word must not pass for that queue's end: what is linked to it
        // from now on follows it in another.
        if let Some((vcpu, priority)) = state.last
            && let Some(tail) = self.tail(vcpu, priority)
            && *tail == Some(port)
        {
            *tail = None;
        }
        let last = self
            .tail(vcpu, state.priority)
            .and_then(|tail| tail.replace(port));
        if let Some(state) = self.ports.get_mut(port.index()) {
            state.last = Some((vcpu, state.priority));
        }
        let appended = last
            .and_then(|last| self.word(last))
            .is_some_and(|word| append(word, port));
        !appended && control.begin(state.priority, port) && info.raise_upcall()
    }

    fn word(&self, port: Port) -> Option<&AtomicU32> {
        self.array
            .get(port.index() / WORDS_PER_PAGE)
            .map(|page| page.u32(4 * (port.index() % WORDS_PER_PAGE)))
    }

    fn tail(&mut self, vcpu: VcpuId, priority: Priority) -> Option<&mut Option<Port>> {
        self.queues
            .get_mut(vcpu.index())?
            .tails
            .get_mut(priority.index())
    }

    fn awaits(&self, port: Port) -> Awaits {
        self.ports
            .get(port.index())
            .map_or(Awaits::Nothing, |state| state.awaits)
    }

    fn set_awaits(&mut self, port: Port, awaits: Awaits) {
        if let Some(state) = self.ports.get_mut(port.index()) {
            state.awaits = awaits;
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod all_orders;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
