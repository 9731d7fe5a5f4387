//! A machine that remembers what it was told and fails where a test wants it to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::*;
use oxen_xen::domain::CreateDomain;
use oxen_xen::memory::MemoryRange;

/// Number of the only domain.
pub const DOMID: u16 = 5;

#[derive(Default)]
pub struct Model {
    /// The call that fails, counted from 0.
    pub failing_call: Option<usize>,
    /// Largest order that there is memory for.
    pub largest_order: Option<u32>,
    /// Pages of the machine.
    pub free_pages: Option<u64>,
    pub calls: Cell<usize>,
    pub destroyed: Cell<bool>,
    pub alive: Cell<bool>,
    pub pages: RefCell<BTreeSet<u64>>,
    pub orders: RefCell<BTreeSet<u32>>,
    pub memory: RefCell<BTreeMap<u64, u8>>,
    pub params: RefCell<BTreeMap<u32, u64>>,
    pub context: RefCell<Vec<u8>>,
    pub claimed: Cell<u64>,
    pub most_claimed: Cell<u64>,
    pub next_port: Cell<u32>,
}

impl Model {
    fn call(&self) -> io::Result<()> {
        let call = self.calls.replace(self.calls.get() + 1);
        match self.failing_call {
            Some(failing) if call == failing => Err(io::Error::from_raw_os_error(22)),
            _ => Ok(()),
        }
    }

    fn check_mapped(&self, address: u64, size: u64) {
        let pages = self.pages.borrow();
        let all = (address / PAGE_SIZE..(address + size).div_ceil(PAGE_SIZE))
            .all(|gfn| size == 0 || pages.contains(&gfn));
        assert!(all, "{size} bytes at {address:#x} are not in memory");
    }

    /// Bytes at a guest-physical address.
    pub fn read(&self, address: u64, size: usize) -> Vec<u8> {
        let memory = self.memory.borrow();
        (address..address + size as u64)
            .map(|at| memory.get(&at).copied().unwrap_or(0))
            .collect()
    }
}

impl Machine for Model {
    fn create(&self, _: &CreateDomain) -> io::Result<u16> {
        self.call()?;
        self.alive.set(true);
        Ok(DOMID)
    }

    fn destroy(&self, domid: u16) -> io::Result<()> {
        assert_eq!(domid, DOMID);
        self.destroyed.set(true);
        self.alive.set(false);
        Ok(())
    }

    fn set_max_vcpus(&self, _: u16, _: u32) -> io::Result<()> {
        self.call()
    }

    fn set_max_memory(&self, _: u16, _: u64) -> io::Result<()> {
        self.call()
    }

    fn claim(&self, _: u16, pages: u64) -> io::Result<()> {
        self.call()?;
        self.claimed.set(pages);
        self.most_claimed.set(self.most_claimed.get().max(pages));
        Ok(())
    }

    fn populate(&self, _: u16, gfns: &[u64], order: u32) -> io::Result<usize> {
        self.call()?;
        if self.largest_order.is_some_and(|largest| order > largest) {
            return Ok(0);
        }
        for (done, gfn) in gfns.iter().enumerate() {
            let mut pages = self.pages.borrow_mut();
            let size = 1_u64 << order;
            if (self.free_pages).is_some_and(|free| pages.len() as u64 + size > free) {
                return Ok(done);
            }
            for gfn in *gfn..gfn + size {
                assert!(pages.insert(gfn), "page {gfn:#x} twice");
            }
            self.orders.borrow_mut().insert(order);
        }
        Ok(gfns.len())
    }

    fn set_memory_map(&self, _: u16, _: &[MemoryRange]) -> io::Result<()> {
        self.call()
    }

    fn write(&self, _: u16, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.call()?;
        self.check_mapped(address, bytes.len() as u64);
        let mut memory = self.memory.borrow_mut();
        memory.extend(
            bytes
                .iter()
                .enumerate()
                .map(|(i, &byte)| (address + i as u64, byte)),
        );
        Ok(())
    }

    fn set_param(&self, _: u16, index: u32, value: u64) -> io::Result<()> {
        self.call()?;
        self.params.borrow_mut().insert(index, value);
        Ok(())
    }

    fn alloc_unbound(&self, _: u16) -> io::Result<u32> {
        self.call()?;
        self.next_port.set(self.next_port.get() + 1);
        Ok(self.next_port.get())
    }

    fn seed_grants(&self, _: u16, _: u64, _: u64) -> io::Result<()> {
        self.call()
    }

    fn set_context(&self, _: u16, records: &[u8]) -> io::Result<()> {
        self.call()?;
        *self.context.borrow_mut() = records.to_vec();
        Ok(())
    }
}
