//! Copies between the hypervisor and a guest's linear memory, through the guest's own page tables.
//!
//! Each byte is copied once. Nothing here hands out references: the guest may change its memory at any time.

use core::sync::atomic::Ordering;

use oxen_core::address::{Gfn, GuestLinear, GuestPhys, PAGE_SIZE};
use oxen_core::guest_page::GuestPage;
use oxen_core::memory::transfer::{self, Space};
use oxen_core::memory::walk::{self, Access, GuestPhysRead, PageFault};
use spin::MutexGuard;

use super::mapped_page;
use crate::domain::Domain;
use crate::domain::p2m::DomainP2m;
use crate::vcpu::Running;
use crate::virt::{Exception, Vcpu};

/// A linear access that the guest's own tables refuse, or that leads to no RAM.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The linear address that could not be reached.
    pub address: GuestLinear,
    /// The page-fault error code that the guest would see.
    pub error_code: u32,
}

/// A domain's guest-physical memory during one copy: its map stays locked.
struct View<'a>(MutexGuard<'a, DomainP2m>);

impl<'a> View<'a> {
    fn new(domain: &'a Domain) -> Self {
        Self(domain.p2m.lock())
    }

    #[inline]
    fn page(&self, gfn: Gfn, write: bool) -> Option<GuestPage> {
        let mapping = self.0.lookup(gfn)?;
        if write && !mapping.kind.writable() {
            return None;
        }
        mapped_page(&mapping)
    }

    /// The page behind a linear address that has been translated to `physical`, if it was to anything.
    #[inline]
    fn reach(
        &self,
        linear: GuestLinear,
        physical: Option<GuestPhys>,
        write: bool,
    ) -> Result<GuestPage, Fault> {
        const WRITE: u32 = 1 << 1;
        let page = physical.and_then(|physical| self.page(physical.frame(), write));
        page.ok_or(Fault {
            address: linear,
            error_code: if write { WRITE } else { 0 },
        })
    }
}

impl GuestPhysRead for View<'_> {
    #[inline]
    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        let page = self.page(address.frame(), false)?;
        Some(page.u64(address.page_offset()).load(Ordering::Relaxed))
    }

    fn read_u32(&self, address: GuestPhys) -> Option<u32> {
        let page = self.page(address.frame(), false)?;
        Some(page.u32(address.page_offset()).load(Ordering::Relaxed))
    }
}

/// What governs how the vCPU's linear addresses are translated.
pub fn paging<H: Vcpu>(vcpu: &Running<H>) -> walk::Paging {
    let registers = vcpu.hardware.system();
    walk::Paging {
        cr0: registers.cr0,
        cr3: registers.cr3,
        cr4: registers.cr4,
        efer: registers.efer,
        rflags: vcpu.hardware.rflags(),
    }
}

fn translate_in(
    view: &View<'_>,
    paging: &walk::Paging,
    address: GuestLinear,
    access: Access,
) -> Result<GuestPhys, Fault> {
    match walk::translate(view, paging, address, access) {
        Ok(translation) => Ok(translation.address),
        Err(PageFault { error_code }) => Err(Fault {
            address,
            error_code,
        }),
    }
}

/// Translates for an access by the guest's kernel, as a hypercall's pointers are used: supervisor, SMAP lifted when the
/// guest has set AC.
pub fn translate<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    access: Access,
) -> Result<GuestPhys, Fault> {
    translate_in(&View::new(&vcpu.domain), &paging(vcpu), address, access)
}

/// Copies from the guest.
pub fn read<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    into: &mut [u8],
) -> Result<(), Fault> {
    copy_in(vcpu, address, Access::SUPERVISOR_READ, into)
}

fn copy_in<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    access: Access,
    into: &mut [u8],
) -> Result<(), Fault> {
    let length = into.len();
    each_page(vcpu, address, length, access, |page, offset, range| {
        page.read(offset, &mut into[range]);
    })
}

/// Copies instruction bytes, with the rights of the code that runs: user code lies in user pages.
pub fn fetch<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    into: &mut [u8],
) -> Result<(), Fault> {
    let access = Access {
        write: false,
        user: vcpu.hardware.cpl() == 3,
        execute: true,
    };
    copy_in(vcpu, address, access, into)
}

/// Copies to the guest.
pub fn write<H: Vcpu>(vcpu: &Running<H>, address: GuestLinear, from: &[u8]) -> Result<(), Fault> {
    let access = Access::SUPERVISOR_WRITE;
    each_page(vcpu, address, from.len(), access, |page, offset, range| {
        page.write(offset, &from[range]);
    })
}

/// Linear memory of the caller's, a page at most, that a call uses several times and that was looked up in the guest's tables once. The
/// frames are looked up at each use: the guest may give them back meanwhile.
pub struct Translated {
    start: GuestLinear,
    /// Where it is, up to the first page boundary.
    first: GuestPhys,
    /// Where the page behind that is; there may be none.
    second: Option<GuestPhys>,
}

impl Translated {
    /// Translates `length` bytes at an address, to be read and written.
    ///
    /// # Errors
    /// The first byte that cannot be reached so.
    pub fn new<H: Vcpu>(
        vcpu: &Running<H>,
        start: GuestLinear,
        length: usize,
    ) -> Result<Self, Fault> {
        debug_assert!(length <= PAGE_SIZE);
        let (view, paging) = (View::new(&vcpu.domain), paging(vcpu));
        let translate = |at| translate_in(&view, &paging, at, Access::SUPERVISOR_WRITE);
        let first = translate(start)?;
        let there = PAGE_SIZE - first.page_offset();
        let second = if length > there {
            Some(translate(GuestLinear(start.0.wrapping_add(there as u64)))?)
        } else {
            None
        };
        Ok(Self {
            start,
            first,
            second,
        })
    }

    /// Copies from it.
    ///
    /// # Errors
    /// There is no memory any more.
    pub fn read(&self, domain: &Domain, into: &mut [u8]) -> Result<(), Fault> {
        let view = View::new(domain);
        let (head, tail) = into.split_at_mut(self.in_first().min(into.len()));
        self.page(&view, 0, false)?
            .read(self.first.page_offset(), head);
        if !tail.is_empty() {
            self.page(&view, 1, false)?.read(0, tail);
        }
        Ok(())
    }

    /// Writes 16-bit words, each with how many bytes it lies behind the beginning.
    ///
    /// # Errors
    /// There is no memory any more; words before may have been written.
    pub fn write_words(
        &self,
        domain: &Domain,
        words: impl Iterator<Item = (usize, u16)>,
    ) -> Result<(), Fault> {
        let view = View::new(domain);
        let mut pages = [None; 2];
        let mut place = |at: usize| {
            let (nth, offset) = self.place(at);
            let page = match pages[nth] {
                Some(page) => page,
                None => *pages[nth].insert(self.page(&view, nth, true)?),
            };
            Ok((page, offset))
        };
        for (at, word) in words {
            let (page, offset) = place(at)?;
            if offset.is_multiple_of(size_of::<u16>()) {
                page.u16(offset).store(word, Ordering::Relaxed);
                continue;
            }
            // It may be in both pages.
            for (at, byte) in (at..).zip(word.to_le_bytes()) {
                let (page, offset) = place(at)?;
                page.u8(offset).store(byte, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Bytes up to the page boundary.
    const fn in_first(&self) -> usize {
        PAGE_SIZE - self.first.page_offset()
    }

    /// In which of the two pages byte `at` is, and where in it.
    const fn place(&self, at: usize) -> (usize, usize) {
        match at.checked_sub(self.in_first()) {
            None => (0, self.first.page_offset() + at),
            Some(behind) => (1, behind),
        }
    }

    /// The first or the second of the pages.
    fn page(&self, view: &View<'_>, nth: usize, write: bool) -> Result<GuestPage, Fault> {
        let (linear, physical) = if nth == 0 {
            (self.start, Some(self.first))
        } else {
            let boundary = self.start.0.wrapping_add(self.in_first() as u64);
            (GuestLinear(boundary), self.second)
        };
        view.reach(linear, physical, write)
    }
}

/// The caller's memory as its own hypercalls use it, or another domain's through the page tables of one of its vCPUs.
struct Linear<'a> {
    view: &'a View<'a>,
    paging: &'a walk::Paging,
    is_callers: bool,
}

impl Space for Linear<'_> {
    fn page(&self, address: u64, write: bool) -> Option<(GuestPage, usize)> {
        let at = if self.is_callers {
            let access = if write {
                Access::SUPERVISOR_WRITE
            } else {
                Access::SUPERVISOR_READ
            };
            translate_in(self.view, self.paging, GuestLinear(address), access).ok()?
        } else {
            transfer::translate(self.view, self.paging, address)?
        };
        Some((self.view.page(at.frame(), write)?, at.page_offset()))
    }
}

/// Copies between the caller's memory and a domain's, which may be the caller itself, with both maps locked; returns how many bytes
/// there are before the first that cannot be reached. `far` governs how the domain's addresses are translated.
pub fn transfer<H: Vcpu>(
    vcpu: &Running<H>,
    domain: &Domain,
    far: &walk::Paging,
    request: &transfer::Request,
) -> usize {
    // The control domain's map first. No other place locks two.
    let near_view = View::new(&vcpu.domain);
    let far_view = (!core::ptr::eq(domain, &*vcpu.domain)).then(|| View::new(domain));
    let near = Linear {
        view: &near_view,
        paging: &paging(vcpu),
        is_callers: true,
    };
    let far = Linear {
        view: far_view.as_ref().unwrap_or(&near_view),
        paging: far,
        is_callers: false,
    };
    let (buffer, address) = ((&near, request.buffer), (&far, request.address));
    let length = request.length as usize;
    if request.to_domain {
        transfer::copy(buffer, address, length)
    } else {
        transfer::copy(address, buffer, length)
    }
}

/// Raises the fault in the guest.
pub fn raise_page_fault<H: Vcpu>(vcpu: &mut Running<H>, fault: Fault) {
    const PAGE_FAULT: u8 = 14;
    vcpu.hardware.set_cr2(fault.address.0);
    vcpu.hardware.raise(Exception {
        vector: PAGE_FAULT,
        error_code: Some(fault.error_code),
    });
}

/// Splits a linear range at page boundaries: `copy` gets each page, the offset in it, and the range of the buffer.
fn each_page<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    length: usize,
    access: Access,
    mut copy: impl FnMut(GuestPage, usize, core::ops::Range<usize>),
) -> Result<(), Fault> {
    let (view, paging) = (View::new(&vcpu.domain), paging(vcpu));
    let mut done = 0;
    while done < length {
        let at = GuestLinear(address.0.wrapping_add(done as u64));
        let physical = translate_in(&view, &paging, at, access)?;
        let page = view.reach(at, Some(physical), access.write)?;
        let offset = physical.page_offset();
        let part = (PAGE_SIZE - offset).min(length - done);
        copy(page, offset, done..done + part);
        done += part;
    }
    Ok(())
}

/// The four page-directory pointers that CR3 names in PAE mode; 0 where there is no RAM.
pub fn directories(domain: &Domain, cr3: u64) -> [u64; 4] {
    const TABLE: u64 = 0xFFFF_FFE0;
    let view = View::new(domain);
    let first = cr3 & TABLE;
    core::array::from_fn(|index| {
        view.read_u64(GuestPhys(first + 8 * index as u64))
            .unwrap_or(0)
    })
}
