//! The 2-level ABI's bits: pending and mask words in the shared page, a selector word and an upcall flag per vCPU.
//!
//! Order matters: pending bit, selector bit, upcall flag when setting; the guest goes the other way. Each step is one
//! atomic read-modify-write, and the next is taken only by whoever changed the bit.

use core::sync::atomic::Ordering;

use oxen_abi::Errno;
use oxen_abi::event_channel::TWO_LEVEL_PORTS;
use oxen_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, LEGACY_VCPUS, VCPU_INFO_SIZE, vcpu_info};
use spin::Mutex;

use crate::address::PAGE_SIZE;
use crate::guest_page::GuestPage;
use crate::id::Port;

/// Where a vCPU's `vcpu_info` lies.
#[derive(Clone, Copy, Debug)]
pub struct VcpuInfo {
    place: Option<(GuestPage, usize)>,
    moved: bool,
}

impl VcpuInfo {
    /// The place in the shared page; vCPUs past the legacy ones have none until they register one.
    pub(super) fn legacy(shared_info: GuestPage, index: usize) -> Self {
        let place = (index < LEGACY_VCPUS).then_some((shared_info, index * VCPU_INFO_SIZE));
        Self {
            place,
            moved: false,
        }
    }

    /// The page and the offset of the structure.
    pub const fn place(&self) -> Option<(GuestPage, usize)> {
        self.place
    }

    pub(super) fn upcall_pending(&self) -> bool {
        self.place.is_some_and(|(page, offset)| {
            page.u8(offset + vcpu_info::UPCALL_PENDING)
                .load(Ordering::Acquire)
                != 0
        })
    }

    pub(super) fn move_to(&mut self, page: GuestPage, offset: usize) -> Result<(), Errno> {
        if self.moved {
            return Err(Errno::Inval);
        }
        if !offset.is_multiple_of(8) || offset > PAGE_SIZE - VCPU_INFO_SIZE {
            return Err(Errno::NoSys);
        }
        if let Some((old, old_offset)) = self.place {
            let mut bytes = [0; VCPU_INFO_SIZE];
            old.read(old_offset, &mut bytes);
            page.write(offset, &bytes);
        }
        page.u64(offset + vcpu_info::PENDING_SEL)
            .store(u64::MAX, Ordering::Release);
        page.u8(offset + vcpu_info::UPCALL_PENDING)
            .store(1, Ordering::Release);
        *self = Self {
            place: Some((page, offset)),
            moved: true,
        };
        Ok(())
    }

    /// Sets the selector bit; true if the upcall flag went up with it.
    fn select(&self, word: usize) -> bool {
        let Some((page, offset)) = self.place else {
            return false;
        };
        let selector = page.u64(offset + vcpu_info::PENDING_SEL);
        if selector.fetch_or(1 << word, Ordering::AcqRel) & 1 << word != 0 {
            return false;
        }
        page.u8(offset + vcpu_info::UPCALL_PENDING)
            .swap(1, Ordering::AcqRel)
            == 0
    }
}

/// Makes the port pending. `None` if it was already or does not exist, else whether the vCPU must be told.
pub fn set_pending(shared_info: &GuestPage, info: &Mutex<VcpuInfo>, port: Port) -> Option<bool> {
    if port.0 >= TWO_LEVEL_PORTS {
        return None;
    }
    let (word, bit) = (port.index() / 64, 1 << (port.0 % 64));
    let pending = shared_info.u64(EVTCHN_PENDING + 8 * word);
    // Sequentially consistent against a poller's flag, see `begin_poll`.
    if pending.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return None;
    }
    let masked = shared_info
        .u64(EVTCHN_MASK + 8 * word)
        .load(Ordering::Acquire)
        & bit
        != 0;
    Some(!masked && info.lock().select(word))
}

/// Takes the mask off; true if the vCPU must be told of an event that waited behind it.
pub fn unmask(shared_info: &GuestPage, info: &VcpuInfo, port: Port) -> bool {
    if port.0 >= TWO_LEVEL_PORTS {
        return false;
    }
    let (word, bit) = (port.index() / 64, 1 << (port.0 % 64));
    let was_masked = shared_info
        .u64(EVTCHN_MASK + 8 * word)
        .fetch_and(!bit, Ordering::AcqRel)
        & bit
        != 0;
    was_masked && is_pending(shared_info, port) && info.select(word)
}

/// Whether the port is pending, masked or not.
pub fn is_pending(shared_info: &GuestPage, port: Port) -> bool {
    let bit = 1 << (port.0 % 64);
    port.0 < TWO_LEVEL_PORTS
        && shared_info
            .u64(EVTCHN_PENDING + 8 * (port.index() / 64))
            .load(Ordering::SeqCst)
            & bit
            != 0
}

/// Forgets a pending event of a port that is being closed.
pub fn clear_pending(shared_info: &GuestPage, port: Port) {
    if port.0 < TWO_LEVEL_PORTS {
        let bit: u64 = 1 << (port.0 % 64);
        shared_info
            .u64(EVTCHN_PENDING + 8 * (port.index() / 64))
            .fetch_and(!bit, Ordering::AcqRel);
    }
}
