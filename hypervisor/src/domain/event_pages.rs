//! Frames of the domain's RAM that the event machinery writes to.
//!
//! They must stay the domain's for as long as it does: a frame that was given back may be anyone's by the time of the
//! next event. `pages` is locked before the guest-physical map and before the channels.

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_core::address::{Gfn, Mfn};
use oxen_core::guest_page::GuestPage;
use oxen_core::id::VcpuId;
use oxen_core::memory::p2m::Kind;

use super::Domain;
use crate::memory::{guest_page, holds};

/// Which frames these are.
#[derive(Debug, Default)]
pub struct EventPages {
    /// With a `vcpu_info`, for as long as the domain lives.
    vcpu_info: Vec<Mfn>,
    /// With control blocks and event words, until the channels are reset.
    fifo: Vec<Mfn>,
}

impl EventPages {
    /// Whether the domain cannot give the frame up: it is one of them, or others use it. With the guest-physical map locked.
    pub fn must_keep(&self, frame: Mfn) -> bool {
        self.vcpu_info.contains(&frame) || self.fifo.contains(&frame) || holds::is_held(frame)
    }
}

impl Domain {
    /// Moves a vCPU's information, see [`oxen_core::event::EventChannels::register_vcpu_info`].
    ///
    /// # Errors
    /// Those of that, and `Inval` for what is not the domain's own RAM.
    pub fn move_vcpu_info(&self, vcpu: VcpuId, gfn: Gfn, offset: usize) -> Result<(), Errno> {
        let mut pages = self.event_pages.lock();
        let (frame, page) = self.own_ram(gfn)?;
        keep(&mut pages.vcpu_info, frame, || {
            self.events.register_vcpu_info(vcpu, page, offset, self)
        })?;
        self.publish_time(vcpu);
        Ok(())
    }

    /// Gives a vCPU its control block, see [`oxen_core::event::EventChannels::init_control`].
    ///
    /// # Errors
    /// Those of that, and `Inval` for what is not the domain's own RAM.
    pub fn init_event_control(&self, vcpu: VcpuId, gfn: Gfn, offset: u32) -> Result<(), Errno> {
        let mut pages = self.event_pages.lock();
        let (frame, page) = self.own_ram(gfn)?;
        keep(&mut pages.fifo, frame, || {
            self.events.init_control(vcpu, page, offset, self)
        })
    }

    /// Gives the next page of event words, see [`oxen_core::event::EventChannels::expand_array`].
    ///
    /// # Errors
    /// Those of that, and `Inval` for what is not the domain's own RAM.
    pub fn expand_event_array(&self, gfn: Gfn) -> Result<(), Errno> {
        let mut pages = self.event_pages.lock();
        let (frame, page) = self.own_ram(gfn)?;
        keep(&mut pages.fifo, frame, || {
            self.events.expand_array(page, self)
        })
    }

    /// Closes all channels, see [`oxen_core::event::EventChannels::reset`].
    pub fn reset_events(&self) {
        let mut pages = self.event_pages.lock();
        self.events
            .reset(|port, peer| self.tell_far_end(port, peer));
        pages.fifo.clear();
    }

    fn own_ram(&self, gfn: Gfn) -> Result<(Mfn, GuestPage), Errno> {
        let mapping = self.p2m.lock().lookup(gfn);
        let frame = mapping
            .filter(|mapping| mapping.kind == Kind::Ram)
            .map(|mapping| mapping.frame)
            .ok_or(Errno::Inval)?;
        Ok((frame, guest_page(frame).ok_or(Errno::Inval)?))
    }
}

/// Lists the frame if it was taken into use.
fn keep(
    list: &mut Vec<Mfn>,
    frame: Mfn,
    take: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    list.try_reserve(1).map_err(|_| Errno::NoMem)?;
    take()?;
    list.push(frame);
    Ok(())
}
