//! Domains: what their vCPUs share.

pub mod control;
pub mod crash;
pub mod dom0;
pub mod event_pages;
pub mod foreign;
pub mod grant_copy;
pub mod grants;
mod held;
pub mod life;
pub mod p2m;
pub mod registry;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use oxen_abi::event_channel::{Virq, fifo};
use oxen_abi::hvm::{CALLBACK_TYPE_VECTOR, param};
use oxen_abi::shared_info;
use oxen_core::address::{Gfn, GuestPhys, Mfn, PAGE_SIZE};
use oxen_core::apic::{Delivery, Destination, Ipi, Trigger};
use oxen_core::event::{EventChannels, Layout, Notify};
use oxen_core::grant::Limits;
use oxen_core::hvm_params::Params;
use oxen_core::id::{DomainId, VcpuId};
use oxen_core::memory::p2m::{Kind, MapError};
use oxen_core::memory::ranges::{MapEntry, RangeSet};
use oxen_core::memory::try_collect;
use oxen_core::schedule;
use oxen_core::time as clock;
use spin::{Mutex, Once};

use crate::memory::{HostPages, frames, mapped_page};
use crate::time;
use crate::vcpu::VcpuShared;
use control::Control;
use event_pages::EventPages;
use foreign::Foreign;
use grants::Grants;
use life::Life;
use p2m::DomainP2m;

pub use registry::{dom0, set_dom0};

/// Where a vCPU wants its run states written: up to two physical pieces, as the structure may cross a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunstateArea {
    /// Guest-physical address and length of each piece.
    pub pieces: [(GuestPhys, usize); 2],
}

/// A domain.
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// Whether it controls the machine.
    pub privileged: bool,
    /// Its vCPUs.
    pub vcpus: Box<[Arc<VcpuShared>]>,
    /// Its event channels.
    pub events: EventChannels,
    /// Its frames that they write to.
    pub event_pages: Mutex<EventPages>,
    /// Its guest-physical map.
    pub p2m: Mutex<DomainP2m>,
    /// RAM that it owns, by guest frame.
    pub own: Mutex<RangeSet>,
    /// Its memory map as it may ask for it.
    pub memory_map: Once<Box<[MapEntry]>>,
    /// Run-state areas by vCPU.
    pub runstate_areas: Box<[Mutex<Option<RunstateArea>>]>,
    /// Its condition.
    pub life: Arc<Life>,
    /// Its shares of the CPUs.
    pub shares: Arc<schedule::Domain>,
    /// What it and others have mapped of each other.
    pub foreign: Foreign,
    /// What the control domain has set.
    pub control: Control,
    /// The toolstack's name for it.
    pub handle: Mutex<[u8; 16]>,
    /// What is mapped where it has the local APIC, on CPUs that virtualize that.
    pub apic_access_page: Option<HostPages>,
    /// What it grants to others, and what it has mapped of their grants.
    pub grants: Grants,
    /// What is shared has the layout of 32-bit guests.
    is_narrow: AtomicBool,
    shared_info: HostPages,
    shared_info_at: Mutex<Option<Gfn>>,
    /// Numbers that it and its builder leave for each other.
    pub params: Params,
}

/// Where every guest has its local APIC.
const LOCAL_APIC: Gfn = Gfn(0xFEE00);

/// Whether CPUs virtualize the local APIC's page, so that something must be mapped there.
static WANTS_APIC_PAGE: AtomicBool = AtomicBool::new(false);

/// Tells that they do.
pub fn want_apic_access_page() {
    WANTS_APIC_PAGE.store(true, Ordering::Relaxed);
}

impl Domain {
    /// Single blocks of the heap that a domain takes, with its vCPUs.
    pub const fn blocks(vcpus: usize) -> usize {
        const { assert!(size_of::<Self>() + 2 * size_of::<usize>() <= PAGE_SIZE) };
        // Itself, its condition and its shares; what is shared, the seat, the state and the scheduler's part of each vCPU; and
        // the text of what is missing if one cannot be made.
        3 + 4 * vcpus + 2
    }

    /// A domain with the given vCPUs, an empty map and no memory. `None` without memory for its own pages and lists; for its
    /// single blocks room must have been made ([`crate::memory::heap::with_room`]).
    pub fn new(
        id: DomainId,
        privileged: bool,
        life: Life,
        vcpus: usize,
        p2m: DomainP2m,
        grants: Limits,
    ) -> Option<Self> {
        /// What libxl allows guests whose configuration does not say (`max_event_channels`, 1023 beside port 0).
        const GUEST_PORTS: u32 = 1024;
        let ports = if privileged { fifo::PORTS } else { GUEST_PORTS };
        let shared_info = HostPages::new_zeroed(1)?;
        let events = EventChannels::new(id, shared_info.shared(), vcpus, ports).ok()?;
        let apic_access_page = if WANTS_APIC_PAGE.load(Ordering::Relaxed) {
            let mut page = HostPages::new_zeroed(1)?;
            // What vCPUs read there that reach their local APIC by MSRs, as on a machine where nothing answers.
            page.bytes_mut().fill(0xFF);
            Some(page)
        } else {
            None
        };
        let (life, now) = (Arc::new(life), time::nanos());
        let mut shares = schedule::Params::default();
        if privileged {
            shares.weight = dom0::WEIGHT;
        }
        let vcpus =
            (0..vcpus).map(|number| Arc::new(VcpuShared::new(VcpuId(number as u16), &life, now)));
        let vcpus = try_collect(vcpus).ok()?.into_boxed_slice();
        let runstate_areas = try_collect(vcpus.iter().map(|_| Mutex::new(None))).ok()?;
        let domain = Self {
            id,
            privileged,
            events,
            event_pages: Mutex::new(EventPages::default()),
            p2m: Mutex::new(p2m),
            own: Mutex::new(RangeSet::new()),
            memory_map: Once::new(),
            runstate_areas: runstate_areas.into_boxed_slice(),
            grants: Grants::new(grants)?,
            vcpus,
            life,
            shares: schedule::Domain::new(id, shares),
            foreign: Foreign::default(),
            control: Control::default(),
            handle: Mutex::new([0; 16]),
            apic_access_page,
            is_narrow: AtomicBool::new(false),
            shared_info,
            shared_info_at: Mutex::new(None),
            params: Params::new(),
        };
        if let Some(page) = &domain.apic_access_page {
            // Only vCPUs that do not use their local APIC there reach it; it says nothing.
            domain.map_shared(LOCAL_APIC, page.first()).ok()?;
        }
        domain.publish_wallclock();
        for vcpu in &domain.vcpus {
            domain.publish_time(vcpu.id);
        }
        Some(domain)
    }

    /// Writes guest-physical memory; false if a part of it is no memory that the domain may write.
    pub fn write_physical(&self, address: GuestPhys, from: &[u8]) -> bool {
        // Held until the last byte: a frame that the domain gives back meanwhile may be anybody's.
        let p2m = self.p2m.lock();
        let mut done = 0;
        while done < from.len() {
            let Some(at) = address.checked_add(done as u64) else {
                return false;
            };
            let page = p2m
                .lookup(at.frame())
                .filter(|mapping| mapping.kind.writable())
                .and_then(|mapping| mapped_page(&mapping));
            let Some(page) = page else {
                return false;
            };
            let part = (PAGE_SIZE - at.page_offset()).min(from.len() - done);
            page.write(at.page_offset(), &from[done..done + part]);
            done += part;
        }
        true
    }

    /// The vector of the event-channel callback, if the guest has asked for one.
    pub fn callback_vector(&self) -> Option<u8> {
        let value = self.params.value(param::CALLBACK_IRQ);
        (value >> 56 == CALLBACK_TYPE_VECTOR).then_some(value as u8)
    }

    /// Shows the vCPU the time.
    pub fn publish_time(&self, vcpu: VcpuId) {
        let now = time::vcpu_time();
        if let Some((page, offset)) = self.events.vcpu_info(vcpu).and_then(|info| info.place()) {
            clock::publish(&page, offset + shared_info::vcpu_info::TIME, &now);
        }
    }

    /// Takes the layout of what is shared from the mode in which the domain calls, and shows the wall clock where that has it.
    pub fn set_layout(&self, layout: Layout) {
        let is_narrow = layout == Layout::Narrow;
        if self.is_narrow.swap(is_narrow, Ordering::AcqRel) != is_narrow {
            self.events.set_layout(layout);
            self.publish_wallclock();
        }
    }

    /// Shows the domain the wall clock.
    pub fn publish_wallclock(&self) {
        use shared_info::{WALLCLOCK, WALLCLOCK_HIGH, WALLCLOCK_HIGH_NARROW, WALLCLOCK_NARROW};
        let (place, high) = if self.is_narrow.load(Ordering::Acquire) {
            (WALLCLOCK_NARROW, WALLCLOCK_HIGH_NARROW)
        } else {
            (WALLCLOCK, WALLCLOCK_HIGH)
        };
        clock::publish_wallclock(
            &self.shared_info.shared(),
            place,
            high,
            self.control.wall_clock(time::utc_at_zero()),
        );
    }

    /// Writes a vCPU's run states where the guest asked for them.
    pub fn publish_runstate(&self, index: usize) {
        let Some(area) = self.runstate_areas.get(index).and_then(|area| *area.lock()) else {
            return;
        };
        let Some(vcpu) = self.vcpus.get(index) else {
            return;
        };
        let runstate = *vcpu.runstate.lock();
        let (wide, narrow) = (runstate.to_bytes(), runstate.to_narrow_bytes());
        let bytes: &[u8] = if self.is_narrow.load(Ordering::Acquire) {
            &narrow
        } else {
            &wide
        };
        let mut done = 0;
        for (address, length) in area.pieces {
            // An area that was registered for the other layout gets what fits.
            let end = (done + length).min(bytes.len());
            self.write_physical(address, &bytes[done..end]);
            done = end;
        }
    }

    /// Maps the shared information page at `gfn`, in place of where it was.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn map_shared_info(&self, gfn: Gfn) -> Result<(), MapError> {
        let mut place = self.shared_info_at.lock();
        let frame = self.shared_info.first();
        self.move_shared(gfn, frame, |gfn| place.replace(gfn))
    }

    /// Maps a frame of the hypervisor's at `gfn`, in place of where it was. `place` notes the new place and tells the old one.
    ///
    /// # Errors
    /// Those of [`Domain::map_shared`].
    pub fn move_shared(
        &self,
        gfn: Gfn,
        frame: Mfn,
        place: impl FnOnce(Gfn) -> Option<Gfn>,
    ) -> Result<(), MapError> {
        self.map_shared(gfn, frame)?;
        if let Some(old) = place(gfn).filter(|&old| old != gfn) {
            let mut p2m = self.p2m.lock();
            // The domain may have removed it from there and have something else there now.
            if p2m.lookup(old).is_some_and(|there| there.frame == frame) {
                p2m.unmap(old, 1)?;
            }
        }
        Ok(())
    }

    /// Maps a frame of the hypervisor's at `gfn`. The RAM that was there goes back to the machine; the control domain keeps
    /// its, which is its by number, out of its reach.
    ///
    /// # Errors
    /// The map cannot be changed, or what is there cannot be given up: pages of others, and own ones that others use or that
    /// events are written to.
    pub fn map_shared(&self, gfn: Gfn, frame: Mfn) -> Result<(), MapError> {
        let event_pages = self.event_pages.lock();
        let mut own = self.own.lock();
        let mut p2m = self.p2m.lock();
        let before = p2m.lookup(gfn);
        let is_needed = before.is_some_and(|before| match before.kind {
            Kind::Ram => event_pages.must_keep(before.frame),
            Kind::Foreign | Kind::Grant | Kind::GrantReadOnly => true,
            Kind::RamReadOnly | Kind::Device | Kind::Shared => false,
        });
        if is_needed {
            return Err(MapError::BeyondMap);
        }
        let old_ram = before.filter(|old| old.kind == Kind::Ram && !self.privileged);
        if old_ram.is_some() {
            own.reserve().map_err(|_| MapError::OutOfMemory)?;
        }
        p2m.replace(gfn, frame, Kind::Shared)?;
        if let Some(old) = old_ram {
            own.remove(gfn.bytes(1));
            frames::give_back(old.frame);
        }
        Ok(())
    }

    /// Sends what a vCPU's local APIC asked for.
    pub fn send_ipi(&self, sender: usize, ipi: &Ipi) {
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            let addressed = match ipi.destination {
                Destination::Own => index == sender,
                Destination::Others => index != sender,
                destination => vcpu.identity.lock().matches(destination),
            };
            if !addressed {
                continue;
            }
            match ipi.delivery {
                Delivery::Fixed => self.post(vcpu, ipi.vector, Trigger::Edge),
                Delivery::LowestPriority => {
                    self.post(vcpu, ipi.vector, Trigger::Edge);
                    return;
                }
                Delivery::Nmi => vcpu.post_nmi(),
                Delivery::Init => vcpu.post_init(),
                Delivery::Startup => vcpu.post_startup(ipi.vector),
            }
        }
    }

    /// Delivers an interrupt to whom it is addressed.
    pub fn deliver(&self, message: &oxen_core::apic::io::Message) {
        for vcpu in self
            .vcpus
            .iter()
            .filter(|vcpu| vcpu.identity.lock().matches(message.destination))
        {
            match message.delivery {
                Delivery::Nmi => vcpu.post_nmi(),
                Delivery::Fixed | Delivery::LowestPriority => {
                    self.post(vcpu, message.vector, message.trigger)
                }
                Delivery::Init | Delivery::Startup => {}
            }
            if message.delivery == Delivery::LowestPriority {
                return;
            }
        }
    }

    /// Raises a global virtual interrupt.
    pub fn raise_global_virq(&self, virq: Virq) {
        self.events.raise_virq(VcpuId(0), virq, self);
    }

    fn post(&self, vcpu: &VcpuShared, vector: u8, trigger: Trigger) {
        if vcpu.posted.post(vector, trigger) {
            vcpu.kick_for_entry();
        }
    }
}

impl Notify for Domain {
    fn notify(&self, vcpu: VcpuId) {
        let Some(vcpu) = self.vcpus.get(vcpu.index()) else {
            return;
        };
        match vcpu.upcall_vector() {
            Some(vector) => self.post(vcpu, vector, Trigger::Edge),
            None => vcpu.kick_for_entry(),
        }
    }
}
