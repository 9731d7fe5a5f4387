//! The 2-level ABI's bits: pending and mask words in the shared page, a selector word and an upcall flag per vCPU.
//!
//! Order matters: pending bit, selector bit, upcall flag when setting; the guest goes the other way. Each step is one
//! atomic read-modify-write, and the next is taken only by whoever changed the bit.

use core::sync::atomic::Ordering;

use oxen_abi::Errno;
use oxen_abi::event_channel::{TWO_LEVEL_PORTS, TWO_LEVEL_PORTS_NARROW};
use oxen_abi::shared_info::{
    EVTCHN_MASK, EVTCHN_MASK_NARROW, EVTCHN_PENDING, LEGACY_VCPUS, VCPU_INFO_SIZE, vcpu_info,
};

use super::abi::Change;
use crate::address::PAGE_SIZE;
use crate::guest_page::GuestPage;
use crate::id::Port;

/// The layout of what is shared with the guest, by the mode that it was in when it turned to us.
///
/// A port's bit in the bitmaps is the same in both, as words lie with their low end first: where the masks begin differs, how many
/// ports there are, and how many of them a bit of the selector stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Of 64-bit guests.
    #[default]
    Wide,
    /// Of 32-bit guests.
    Narrow,
}

impl Layout {
    /// Ports that there are bits for.
    pub const fn ports(self) -> u32 {
        match self {
            Self::Wide => TWO_LEVEL_PORTS,
            Self::Narrow => TWO_LEVEL_PORTS_NARROW,
        }
    }

    const fn masks(self) -> usize {
        match self {
            Self::Wide => EVTCHN_MASK,
            Self::Narrow => EVTCHN_MASK_NARROW,
        }
    }
}

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
    pub(super) fn copied_to(
        &self,
        page: GuestPage,
        offset: usize,
        layout: Layout,
    ) -> Result<Self, Errno> {
        if !offset.is_multiple_of(8) || offset > PAGE_SIZE - VCPU_INFO_SIZE {
            return Err(Errno::NxIo);
        }
        let mut bytes = [0; VCPU_INFO_SIZE];
        if let Some((old, old_offset)) = self.place {
            old.read(old_offset, &mut bytes);
        }
        page.write(offset, &bytes);
        match layout {
            Layout::Wide => page
                .u64(offset + vcpu_info::PENDING_SEL)
                .store(u64::MAX, Ordering::Release),
            Layout::Narrow => page
                .u32(offset + vcpu_info::PENDING_SEL_NARROW)
                .store(u32::MAX, Ordering::Release),
        }
        page.u8(offset + vcpu_info::UPCALL_PENDING)
            .store(1, Ordering::Release);
        Ok(Self {
            place: Some((page, offset)),
        })
    }

    /// Sets the port's selector bit; true if the upcall flag went up with it.
    fn select(&self, layout: Layout, port: Port) -> bool {
        let Some((page, offset)) = self.place else {
            return false;
        };
        let was_clear = match layout {
            Layout::Wide => {
                let bit = 1 << (port.0 / 64);
                let selector = page.u64(offset + vcpu_info::PENDING_SEL);
                selector.fetch_or(bit, Ordering::AcqRel) & bit == 0
            }
            Layout::Narrow => {
                let bit = 1 << (port.0 / 32);
                let selector = page.u32(offset + vcpu_info::PENDING_SEL_NARROW);
                selector.fetch_or(bit, Ordering::AcqRel) & bit == 0
            }
        };
        was_clear && self.raise_upcall()
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

/// The shared page, and its layout.
#[derive(Clone, Copy)]
pub struct Shared {
    pub page: GuestPage,
    pub layout: Layout,
}

impl Shared {
    /// Makes the port pending.
    pub fn set_pending(&self, info: &VcpuInfo, port: Port) -> Change {
        let Some((word, bit)) = self.position(port) else {
            return Change::None;
        };
        let pending = self.page.u64(EVTCHN_PENDING + word);
        // Sequentially consistent against pollers, see `Poll`.
        if pending.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            return Change::None;
        }
        let mask = self.page.u64(self.layout.masks() + word);
        if mask.load(Ordering::Acquire) & bit == 0 && info.select(self.layout, port) {
            Change::Upcall
        } else {
            Change::Pending
        }
    }

    /// Takes the mask off; true if the vCPU must be told of an event that waited behind it.
    pub fn unmask(&self, info: &VcpuInfo, port: Port) -> bool {
        let Some((word, bit)) = self.position(port) else {
            return false;
        };
        let mask = self.page.u64(self.layout.masks() + word);
        mask.fetch_and(!bit, Ordering::AcqRel) & bit != 0
            && self.is_pending(port)
            && info.select(self.layout, port)
    }

    /// Whether the port is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> bool {
        self.is_set(EVTCHN_PENDING, port)
    }

    /// Whether the port is masked.
    pub fn is_masked(&self, port: Port) -> bool {
        self.is_set(self.layout.masks(), port)
    }

    /// Takes a pending event away from the guest; true if there was one.
    pub fn clear_pending(&self, port: Port) -> bool {
        self.position(port).is_some_and(|(word, bit)| {
            let pending = self.page.u64(EVTCHN_PENDING + word);
            pending.fetch_and(!bit, Ordering::AcqRel) & bit != 0
        })
    }

    fn is_set(&self, bitmap: usize, port: Port) -> bool {
        self.position(port).is_some_and(|(word, bit)| {
            self.page.u64(bitmap + word).load(Ordering::SeqCst) & bit != 0
        })
    }

    /// The offset of a port's word in the bitmaps, and its bit there, if it has them. Words are read as 64-bit ones for both.
    fn position(&self, port: Port) -> Option<(usize, u64)> {
        (port.0 < self.layout.ports()).then_some((port.index() / 64 * 8, 1 << (port.0 % 64)))
    }
}
