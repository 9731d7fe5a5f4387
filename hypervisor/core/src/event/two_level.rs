//! The 2-level ABI's bits: pending and mask words in the shared page, a selector word and an upcall flag per vCPU.
//!
//! Order matters: pending bit, selector bit, upcall flag when setting; the guest goes the other way. Each step is one
//! atomic read-modify-write, and the next is taken only by whoever changed the bit.

use core::sync::atomic::Ordering;

use oxen_abi::Errno;
use oxen_abi::event_channel::TWO_LEVEL_PORTS;
use oxen_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, LEGACY_VCPUS, VCPU_INFO_SIZE, vcpu_info};

use super::abi::Change;
use crate::address::PAGE_SIZE;
use crate::guest_page::GuestPage;
use crate::id::Port;

/// Where a vCPU's `vcpu_info` lies.
#[derive(Clone, Copy, Debug)]
pub struct VcpuInfo {
    place: Option<(GuestPage, usize)>,
}

impl VcpuInfo {
    /// The place in the shared page; vCPUs past the legacy ones have none until they register one.
    pub(super) fn legacy(shared_info: GuestPage, index: usize) -> Self {
        Self {
            place: (index < LEGACY_VCPUS).then_some((shared_info, index * VCPU_INFO_SIZE)),
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

    /// A copy at another place, in which everything may be pending. Nobody sends to the vCPU meanwhile.
    pub(super) fn copied_to(&self, page: GuestPage, offset: usize) -> Result<Self, Errno> {
        if !offset.is_multiple_of(8) || offset > PAGE_SIZE - VCPU_INFO_SIZE {
            return Err(Errno::NxIo);
        }
        let mut bytes = [0; VCPU_INFO_SIZE];
        if let Some((old, old_offset)) = self.place {
            old.read(old_offset, &mut bytes);
        }
        page.write(offset, &bytes);
        page.u64(offset + vcpu_info::PENDING_SEL)
            .store(u64::MAX, Ordering::Release);
        page.u8(offset + vcpu_info::UPCALL_PENDING)
            .store(1, Ordering::Release);
        Ok(Self {
            place: Some((page, offset)),
        })
    }

    /// Sets the selector bit; true if the upcall flag went up with it.
    fn select(&self, word: usize) -> bool {
        let Some((page, offset)) = self.place else {
            return false;
        };
        let bit = 1 << word;
        let selector = page.u64(offset + vcpu_info::PENDING_SEL);
        selector.fetch_or(bit, Ordering::AcqRel) & bit == 0 && self.raise_upcall()
    }

    /// Sets the upcall flag; true if it went up. A vCPU that has no place for it looks when it gets one.
    pub(super) fn raise_upcall(&self) -> bool {
        self.place.is_some_and(|(page, offset)| {
            page.u8(offset + vcpu_info::UPCALL_PENDING)
                .swap(1, Ordering::AcqRel)
                == 0
        })
    }
}

/// Makes the port pending.
pub fn set_pending(shared_info: &GuestPage, info: &VcpuInfo, port: Port) -> Change {
    let Some((word, bit)) = position(port) else {
        return Change::None;
    };
    let pending = shared_info.u64(EVTCHN_PENDING + 8 * word);
    // Sequentially consistent against pollers, see `Poll`.
    if pending.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return Change::None;
    }
    let mask = shared_info
        .u64(EVTCHN_MASK + 8 * word)
        .load(Ordering::Acquire);
    if mask & bit == 0 && info.select(word) {
        Change::Upcall
    } else {
        Change::Pending
    }
}

/// Takes the mask off; true if the vCPU must be told of an event that waited behind it.
pub fn unmask(shared_info: &GuestPage, info: &VcpuInfo, port: Port) -> bool {
    let Some((word, bit)) = position(port) else {
        return false;
    };
    let mask = shared_info.u64(EVTCHN_MASK + 8 * word);
    mask.fetch_and(!bit, Ordering::AcqRel) & bit != 0
        && is_pending(shared_info, port)
        && info.select(word)
}

/// Whether the port is pending, masked or not.
pub fn is_pending(shared_info: &GuestPage, port: Port) -> bool {
    is_set(shared_info, EVTCHN_PENDING, port)
}

/// Whether the port is masked.
pub fn is_masked(shared_info: &GuestPage, port: Port) -> bool {
    is_set(shared_info, EVTCHN_MASK, port)
}

/// Takes a pending event away from the guest; true if there was one.
pub fn clear_pending(shared_info: &GuestPage, port: Port) -> bool {
    position(port).is_some_and(|(word, bit)| {
        let pending = shared_info.u64(EVTCHN_PENDING + 8 * word);
        pending.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    })
}

fn is_set(shared_info: &GuestPage, bitmap: usize, port: Port) -> bool {
    position(port).is_some_and(|(word, bit)| {
        shared_info.u64(bitmap + 8 * word).load(Ordering::SeqCst) & bit != 0
    })
}

/// The word and the bit of a port in the bitmaps, if it has them.
fn position(port: Port) -> Option<(usize, u64)> {
    (port.0 < TWO_LEVEL_PORTS).then_some((port.index() / 64, 1 << (port.0 % 64)))
}
