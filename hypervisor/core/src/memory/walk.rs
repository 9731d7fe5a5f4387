//! Walks of a guest's own page tables: linear to guest-physical (SDM vol. 3, chapter 4).

use crate::address::{GuestLinear, GuestPhys};
use crate::registers::{cr0, cr4, efer, rflags};

/// Reads of guest-physical memory, for table entries.
pub trait GuestPhysRead {
    /// The 64-bit word at an aligned address; `None` where there is no RAM.
    fn read_u64(&self, address: GuestPhys) -> Option<u64>;
    /// The 32-bit word at an aligned address; `None` where there is no RAM.
    fn read_u32(&self, address: GuestPhys) -> Option<u32>;
}

/// The registers that govern paging.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
}

/// What the access does.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// It writes.
    pub write: bool,
    /// It is the user's (CPL 3), not the kernel's.
    pub user: bool,
    /// It fetches an instruction.
    pub execute: bool,
}

impl Access {
    /// A read by the kernel.
    pub const SUPERVISOR_READ: Self = Self {
        write: false,
        user: false,
        execute: false,
    };
    /// A write by the kernel.
    pub const SUPERVISOR_WRITE: Self = Self {
        write: true,
        user: false,
        execute: false,
    };
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address.
    pub address: GuestPhys,
    /// log2 of the bytes that one entry maps.
    pub page_shift: u32,
}

/// The fault that the access would raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// Error code as pushed by the CPU.
    pub error_code: u32,
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// The entries on the way down, together: a right that one gives, all must give.
#[derive(Clone, Copy)]
struct Rights {
    /// Bits that all of them have.
    all: u64,
    /// Bits that one of them has.
    any: u64,
}

impl Rights {
    const START: Self = Self { all: !0, any: 0 };
}

/// Translates `linear` for `access`. Accessed and dirty bits are not set: the hypervisor's own accesses are not the
/// guest's.
///
/// # Errors
/// The page fault that the guest's tables call for.
pub fn translate(
    memory: &impl GuestPhysRead,
    paging: &Paging,
    linear: GuestLinear,
    access: Access,
) -> Result<Translation, PageFault> {
    if paging.cr0 & cr0::PAGING == 0 {
        return Ok(Translation {
            address: GuestPhys(linear.0 & 0xFFFF_FFFF),
            page_shift: 32,
        });
    }
    let (entry, shift, rights) = if paging.efer & efer::LMA != 0 {
        let levels = if paging.cr4 & cr4::FIVE_LEVELS != 0 {
            5
        } else {
            4
        };
        walk_long(memory, paging, linear.0, levels, access)?
    } else if paging.cr4 & cr4::PAE != 0 {
        walk_pae(memory, paging, linear.0 & 0xFFFF_FFFF, access)?
    } else {
        walk_legacy(memory, paging, linear.0 & 0xFFFF_FFFF, access)?
    };
    check(paging, rights, access)?;
    let offset = linear.0 & ((1 << shift) - 1);
    let base = entry & ADDRESS & !((1 << shift) - 1);
    Ok(Translation {
        address: GuestPhys(base | offset),
        page_shift: shift,
    })
}

fn walk_long(
    memory: &impl GuestPhysRead,
    paging: &Paging,
    linear: u64,
    levels: u32,
    access: Access,
) -> Result<(u64, u32, Rights), PageFault> {
    let mut table = paging.cr3 & ADDRESS;
    let mut rights = Rights::START;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let slot = (linear >> shift) & 511;
        let entry = memory.read_u64(GuestPhys(table + slot * 8)).unwrap_or(0);
        descend(entry, &mut rights, access)?;
        if level == 0 || (level <= 2 && entry & LARGE != 0) {
            return Ok((entry, shift, rights));
        }
        table = entry & ADDRESS;
    }
    Err(fault(false, access))
}

fn walk_pae(
    memory: &impl GuestPhysRead,
    paging: &Paging,
    linear: u64,
    access: Access,
) -> Result<(u64, u32, Rights), PageFault> {
    let pointers = paging.cr3 & 0xFFFF_FFE0;
    let top = memory
        .read_u64(GuestPhys(pointers + (linear >> 30) * 8))
        .unwrap_or(0);
    if top & PRESENT == 0 {
        return Err(fault(false, access));
    }
    let mut rights = Rights::START;
    let mut table = top & ADDRESS;
    for level in [1, 0] {
        let shift = 12 + 9 * level;
        let entry = memory
            .read_u64(GuestPhys(table + ((linear >> shift) & 511) * 8))
            .unwrap_or(0);
        descend(entry, &mut rights, access)?;
        if level == 0 || entry & LARGE != 0 {
            return Ok((entry, shift, rights));
        }
        table = entry & ADDRESS;
    }
    Err(fault(false, access))
}

fn walk_legacy(
    memory: &impl GuestPhysRead,
    paging: &Paging,
    linear: u64,
    access: Access,
) -> Result<(u64, u32, Rights), PageFault> {
    let mut rights = Rights::START;
    let directory = paging.cr3 & 0xFFFF_F000;
    let entry = u64::from(
        memory
            .read_u32(GuestPhys(directory + (linear >> 22) * 4))
            .unwrap_or(0),
    );
    descend(entry, &mut rights, access)?;
    if entry & LARGE != 0 && paging.cr4 & cr4::PAGE_SIZE != 0 {
        // PSE-36: bits 20:13 are address bits 39:32.
        let base = entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32;
        return Ok((base, 22, rights));
    }
    let table = entry & 0xFFFF_F000;
    let entry = u64::from(
        memory
            .read_u32(GuestPhys(table + (linear >> 12 & 0x3FF) * 4))
            .unwrap_or(0),
    );
    descend(entry, &mut rights, access)?;
    Ok((entry & 0xFFFF_F000, 12, rights))
}

fn descend(entry: u64, rights: &mut Rights, access: Access) -> Result<(), PageFault> {
    if entry & PRESENT == 0 {
        return Err(fault(false, access));
    }
    rights.all &= entry;
    rights.any |= entry;
    Ok(())
}

fn check(paging: &Paging, rights: Rights, access: Access) -> Result<(), PageFault> {
    let (writable, user) = (rights.all & WRITABLE != 0, rights.all & USER != 0);
    let no_execute = rights.any & NO_EXECUTE != 0 && paging.efer & efer::NO_EXECUTE != 0;
    let smep = user && !access.user && paging.cr4 & cr4::SMEP != 0;
    let smap = user && paging.cr4 & cr4::SMAP != 0 && paging.rflags & rflags::ALIGNMENT == 0;
    let write_protected = access.user || paging.cr0 & cr0::WRITE_PROTECT != 0;
    let refused = (access.user && !user)
        || (access.write && !writable && write_protected)
        || (access.execute && (no_execute || smep))
        || (!access.execute && !access.user && smap);
    if refused {
        Err(fault(true, access))
    } else {
        Ok(())
    }
}

/// Error code bits: present 0, write 1, user 2, fetch 4 (SDM vol. 3, 4.7).
const fn fault(present: bool, access: Access) -> PageFault {
    let error_code = present as u32
        | (access.write as u32) << 1
        | (access.user as u32) << 2
        | (access.execute as u32) << 4;
    PageFault { error_code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Memory(HashMap<u64, u64>);

    impl GuestPhysRead for Memory {
        fn read_u64(&self, address: GuestPhys) -> Option<u64> {
            self.0.get(&address.0).copied()
        }

        fn read_u32(&self, address: GuestPhys) -> Option<u32> {
            let word = self.0.get(&(address.0 & !7))?;
            Some((word >> (8 * (address.0 & 4))) as u32)
        }
    }

    const LONG_MODE: Paging = Paging {
        cr0: cr0::PAGING | cr0::WRITE_PROTECT,
        cr3: 0x1000,
        cr4: cr4::PAE,
        efer: efer::LMA | efer::NO_EXECUTE,
        rflags: 0,
    };

    fn mapped(leaf: u64) -> Memory {
        let flags = PRESENT | WRITABLE | USER;
        Memory(HashMap::from([
            (0x1000, 0x2000 | flags),
            (0x2000, 0x3000 | flags),
            (0x3000, 0x4000 | flags),
            (0x4008, leaf),
        ]))
    }

    #[test]
    fn four_levels_lead_to_the_page() {
        let memory = mapped(0xABC000 | PRESENT | WRITABLE);
        let found = translate(
            &memory,
            &LONG_MODE,
            GuestLinear(0x1234),
            Access::SUPERVISOR_WRITE,
        );
        assert_eq!(
            found,
            Ok(Translation {
                address: GuestPhys(0xABC234),
                page_shift: 12
            })
        );
    }

    #[test]
    fn a_missing_page_faults_with_the_access_in_the_code() {
        let fault = translate(
            &mapped(0),
            &LONG_MODE,
            GuestLinear(0x1234),
            Access::SUPERVISOR_WRITE,
        );
        assert_eq!(fault, Err(PageFault { error_code: 0b10 }));
    }

    #[test]
    fn smap_holds_unless_the_guest_lifted_it() {
        let memory = mapped(0xABC000 | PRESENT | WRITABLE | USER);
        let mut paging = Paging {
            cr4: cr4::PAE | cr4::SMAP,
            ..LONG_MODE
        };
        assert_eq!(
            translate(
                &memory,
                &paging,
                GuestLinear(0x1000),
                Access::SUPERVISOR_READ
            ),
            Err(PageFault { error_code: 1 })
        );
        paging.rflags = rflags::ALIGNMENT;
        assert!(
            translate(
                &memory,
                &paging,
                GuestLinear(0x1000),
                Access::SUPERVISOR_READ
            )
            .is_ok()
        );
    }

    #[test]
    fn read_only_pages_refuse_the_kernel_only_under_write_protect() {
        let memory = mapped(0xABC000 | PRESENT);
        let lax = Paging {
            cr0: cr0::PAGING,
            ..LONG_MODE
        };
        assert!(
            translate(
                &memory,
                &LONG_MODE,
                GuestLinear(0x1000),
                Access::SUPERVISOR_WRITE
            )
            .is_err()
        );
        assert!(translate(&memory, &lax, GuestLinear(0x1000), Access::SUPERVISOR_WRITE).is_ok());
    }

    #[test]
    fn large_pages_keep_the_low_bits() {
        let flags = PRESENT | WRITABLE;
        let memory = Memory(HashMap::from([
            (0x1000, 0x2000 | flags),
            (0x2000, 0x4000_0000 | flags | LARGE),
        ]));
        let found = translate(
            &memory,
            &LONG_MODE,
            GuestLinear(0x1234_5678),
            Access::SUPERVISOR_READ,
        );
        assert_eq!(
            found,
            Ok(Translation {
                address: GuestPhys(0x5234_5678),
                page_shift: 30
            })
        );
    }

    #[test]
    fn paging_off_is_the_identity() {
        let found = translate(
            &Memory::default(),
            &Paging::default(),
            GuestLinear(0x1234),
            Access::SUPERVISOR_READ,
        );
        assert_eq!(found.map(|t| t.address), Ok(GuestPhys(0x1234)));
    }
}
