//! A guest that uses the FIFO ABI as Linux does.

use crate::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex as StdMutex;

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo::{
    BUSY, LINK, LINKED, MASKED, PENDING, PRIORITIES, WORDS_PER_PAGE, control_block,
};

use crate::event::{EventChannels, Notify};
use crate::guest_page::GuestPage;
use crate::guest_page::testing::leaked_page;
use crate::id::{DomainId, Port, VcpuId};

/// Its number.
pub const OWN: DomainId = DomainId(1);

/// vCPUs that were told.
#[derive(Default)]
pub struct Told(StdMutex<Vec<VcpuId>>);

impl Notify for Told {
    fn notify(&self, vcpu: VcpuId) {
        self.0.lock().expect("no test panics here").push(vcpu);
    }
}

impl Told {
    pub fn take(&self) -> Vec<VcpuId> {
        std::mem::take(&mut *self.0.lock().expect("no test panics here"))
    }
}

pub struct Guest {
    pub events: EventChannels,
    pub shared: GuestPage,
    pub told: Told,
    pub controls: Vec<Option<GuestPage>>,
    pub array: Vec<GuestPage>,
    /// Where each vCPU goes on in each queue; 0 for at the control block's head.
    heads: Vec<[AtomicU32; PRIORITIES]>,
}

/// Where in their pages the control blocks lie.
pub const CONTROL_OFFSET: u32 = 4096 - 72;

impl Guest {
    pub fn new(vcpus: usize, limit: u32) -> Self {
        let shared = leaked_page();
        Self {
            events: EventChannels::new(OWN, shared, vcpus, limit).expect("tests have memory"),
            shared,
            told: Told::default(),
            controls: vec![None; vcpus],
            array: Vec::new(),
            heads: (0..vcpus).map(|_| Default::default()).collect(),
        }
    }

    /// One that uses the FIFO ABI on all vCPUs, with a page of words, none of them masked.
    pub fn ready(vcpus: usize) -> Self {
        let mut guest = Self::new(vcpus, u32::MAX);
        for vcpu in 0..vcpus {
            assert_eq!(guest.init_control(vcpu as u16), Ok(()));
        }
        assert_eq!(guest.expand(0), Ok(()));
        guest
    }

    pub fn init_control(&mut self, vcpu: u16) -> Result<(), Errno> {
        let page = leaked_page();
        let vcpu = VcpuId(vcpu);
        self.events
            .init_control(vcpu, page, CONTROL_OFFSET, &self.told)?;
        self.controls[vcpu.index()] = Some(page);
        Ok(())
    }

    /// Adds a page of words, all of which are `word`.
    pub fn expand(&mut self, word: u32) -> Result<(), Errno> {
        let page = leaked_page();
        // Loom has no time for those that no port has.
        let words = if cfg!(feature = "loom") {
            4
        } else {
            WORDS_PER_PAGE
        };
        for index in 0..words {
            page.u32(4 * index).store(word, Ordering::SeqCst);
        }
        self.events.expand_array(page, &self.told)?;
        self.array.push(page);
        Ok(())
    }

    pub fn reset(&mut self) {
        self.events.reset(|_, _| {});
        self.array.clear();
        self.controls.fill(None);
        self.heads
            .iter_mut()
            .for_each(|heads| *heads = Default::default());
    }

    pub fn word(&self, port: u32) -> &AtomicU32 {
        let index = port as usize;
        self.array[index / WORDS_PER_PAGE].u32(4 * (index % WORDS_PER_PAGE))
    }

    pub fn mask(&self, port: u32) {
        self.word(port).fetch_or(MASKED, Ordering::SeqCst);
    }

    /// Waits while the word is busy, and asks for the event if there is one.
    pub fn unmask(&self, port: u32) -> Result<(), Errno> {
        let word = self.word(port);
        let mut seen = word.load(Ordering::SeqCst);
        loop {
            let idle = seen & !BUSY;
            match word.compare_exchange(idle, idle & !MASKED, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        if word.load(Ordering::SeqCst) & PENDING != 0 {
            self.events.unmask(Port(port), &self.told)?;
        }
        Ok(())
    }

    pub fn upcall(&self, vcpu: u16) -> bool {
        self.events.upcall_pending(VcpuId(vcpu))
    }

    /// The upcall handler: takes what is in the vCPU's queues if it was told to look; returns the ports in the order in
    /// which it came to them, each with whether an event was there to handle.
    pub fn look(&self, vcpu: u16) -> Vec<(u32, bool)> {
        let mut seen = Vec::new();
        let index = usize::from(vcpu);
        let flag = self.events.vcpu_info(VcpuId(vcpu)).expect("it exists");
        let (page, offset) = flag.place().expect("it has one");
        if page.u8(offset).swap(0, Ordering::SeqCst) == 0 {
            return seen;
        }
        let Some(control) = self.controls[index] else {
            return seen;
        };
        let offset = CONTROL_OFFSET as usize;
        let take_ready = || {
            control
                .u32(offset + control_block::READY)
                .swap(0, Ordering::SeqCst)
        };
        let mut ready = take_ready();
        while ready != 0 {
            let priority = ready.trailing_zeros() as usize;
            let local = &self.heads[index][priority];
            let port = match local.load(Ordering::SeqCst) {
                0 => control
                    .u32(offset + control_block::HEADS + 4 * priority)
                    .load(Ordering::SeqCst),
                port => port,
            };
            let next = self.unlink(port);
            if next == 0 {
                ready &= !(1 << priority);
            }
            local.store(next, Ordering::SeqCst);
            let word = self.word(port);
            let there = word.load(Ordering::SeqCst) & (PENDING | MASKED) == PENDING;
            if there {
                word.fetch_and(!PENDING, Ordering::SeqCst);
            }
            seen.push((port, there));
            ready |= take_ready();
        }
        seen
    }

    /// Takes the port out of its queue; returns the next one.
    fn unlink(&self, port: u32) -> u32 {
        self.word(port)
            .fetch_and(!(LINKED | LINK), Ordering::SeqCst)
            & LINK
    }
}
