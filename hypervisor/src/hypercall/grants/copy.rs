//! Copies between pages that are the caller's own or granted to it.

use arrayvec::ArrayVec;
use oxen_abi::Errno;
use oxen_abi::grant::{Status, copy as layout};
use oxen_core::address::{Gfn, GuestLinear};
use oxen_core::grant;
use oxen_core::hypercall::Caller;
use oxen_core::id::{DomainId, GrantRef};

use super::super::Outcome;
use super::super::arguments::Argument;
use super::{Array, Stretch, encode};
use crate::domain::grant_copy::{Place, Side};
use crate::memory::guest::Translated;
use crate::vcpu::Running;
use crate::vcpu::counters::GrantWork;
use crate::virt::Vcpu;

type Element = Argument<{ layout::SIZE }>;

/// Elements whose place in the caller's memory is looked up together: that costs as much as a copy.
const BATCH: usize = 16;

/// How the caller lays elements out.
struct Layout {
    is_wide: bool,
    size: usize,
    status_at: usize,
}

impl Layout {
    fn of<H: Vcpu>(vcpu: &Running<H>) -> Self {
        let is_wide = vcpu.is_64_bit();
        let (size, status_at) = if is_wide {
            (layout::SIZE, layout::STATUS)
        } else {
            (layout::SIZE_NARROW, layout::STATUS_NARROW)
        };
        Self {
            is_wide,
            size,
            status_at,
        }
    }

    /// The elements in these bytes.
    fn elements(&self, bytes: &[u8]) -> impl Iterator<Item = Element> {
        bytes
            .chunks_exact(self.size)
            .map(|bytes| match bytes.try_into() {
                Ok(bytes) if self.is_wide => Element::from_bytes(bytes),
                _ => Element::widened(bytes, layout::NARROW),
            })
    }
}

/// `GNTTABOP_copy`.
pub fn copy<H: Vcpu>(vcpu: &mut Running<H>, array: &Array) -> Outcome {
    let stretch = Stretch::begin();
    let layout = Layout::of(vcpu);
    let side = |write| Side::new(vcpu.domain.clone(), write);
    let (mut source, mut destination) = (side(false), side(true));
    let mut index = 0;
    while index < array.count {
        if index > 0 && stretch.is_over() {
            return array.go_on(vcpu, index, layout.size);
        }
        let place = GuestLinear(array.at(index, layout.size));
        let mut count = BATCH.min((array.count - index) as usize);
        let memory = Translated::new(vcpu, place, count * layout.size)
            .or_else(|_| {
                // Those before the one that cannot be reached are done nevertheless.
                count = 1;
                Translated::new(vcpu, place, layout.size)
            })
            .map_err(|_| Errno::Fault)?;
        let mut bytes = [0; BATCH * layout::SIZE];
        let bytes = &mut bytes[..count * layout.size];
        memory.read(&vcpu.domain, bytes).map_err(|_| Errno::Fault)?;
        let statuses = layout.elements(bytes).map(|element| {
            vcpu.shared().counters.grant(GrantWork::Copy);
            let result = copy_one(&element, &mut source, &mut destination);
            if result.is_err() {
                source.release();
                destination.release();
            }
            encode(result)
        });
        let statuses: ArrayVec<u16, BATCH> = statuses.collect();
        let places = (0..).map(|nth| nth * layout.size + layout.status_at);
        memory
            .write_words(&vcpu.domain, places.zip(statuses))
            .map_err(|_| Errno::Fault)?;
        index += count as u32;
    }
    Ok(0)
}

fn copy_one(element: &Element, source: &mut Side, destination: &mut Side) -> Result<(), Status> {
    let flags = element.u16(layout::FLAGS);
    let from = place(
        element,
        layout::SOURCE,
        flags & layout::FLAG_SOURCE_GRANT != 0,
        source,
    )?;
    let to = place(
        element,
        layout::DESTINATION,
        flags & layout::FLAG_DESTINATION_GRANT != 0,
        destination,
    )?;
    let offset = |side: usize| element.u16(side + layout::SIDE_OFFSET);
    let from = source.hold(from, offset(layout::SOURCE))?;
    let to = destination.hold(to, offset(layout::DESTINATION))?;
    grant::copy(from, to, element.u16(layout::LENGTH))
}

/// What one side of an element names. Pages are the caller's own.
fn place(element: &Element, side: usize, is_grant: bool, end: &mut Side) -> Result<Place, Status> {
    let number = DomainId(element.u16(side + layout::SIDE_DOMAIN));
    if !is_grant && number != DomainId::SELF {
        return Err(Status::PermissionDenied);
    }
    end.name(number)?;
    Ok(if is_grant {
        Place::Granted(GrantRef(element.u32(side + layout::SIDE_PAGE)))
    } else {
        Place::Own(Gfn(element.u64(side + layout::SIDE_PAGE)))
    })
}
