//! The hypervisor's own page tables: W^X for the image, no execution anywhere else, unmapped guards around stacks.

use oxen_core::address::{HostPhys, Mfn, PAGE_SIZE};
use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::{frames, layout};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// What a mapping permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Execute and read.
    Execute,
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read and write, strongly uncached: device registers.
    Device,
}

impl Permission {
    const fn bits(self) -> u64 {
        match self {
            Self::Execute => PRESENT | GLOBAL,
            Self::Read => PRESENT | NO_EXECUTE | GLOBAL,
            Self::Write => PRESENT | WRITE | NO_EXECUTE | GLOBAL,
            Self::Device => PRESENT | WRITE | NO_EXECUTE | GLOBAL | CACHE_DISABLE | WRITE_THROUGH,
        }
    }
}

struct Tables {
    root: Mfn,
    gigabyte_pages: bool,
    next_stack: u64,
    next_device: u64,
}

static TABLES: Mutex<Option<Tables>> = Mutex::new(None);

/// Bytes of a CPU's main stack.
pub const STACK_SIZE: u64 = 64 * 1024;

/// Builds the final tables from the given RAM ranges (page-aligned physical ranges), without loading them.
pub fn build(ram: impl Iterator<Item = core::ops::Range<u64>>, gigabyte_pages: bool) {
    // The root stays below 4 GiB: the application processors load it in protected mode.
    let root = frames::allocate_below_4g_zeroed();
    let mut tables = Tables {
        root,
        gigabyte_pages,
        next_stack: layout::STACKS,
        next_device: layout::DEVICES,
    };
    for range in ram {
        tables.map(
            layout::DIRECT_MAP + range.start,
            range.start,
            range.end - range.start,
            Permission::Write,
        );
    }
    for section in layout::image_sections() {
        let permission = match (section.execute, section.write) {
            (true, _) => Permission::Execute,
            (false, true) => Permission::Write,
            (false, false) => Permission::Read,
        };
        let physical = section.start - layout::IMAGE_OFFSET;
        tables.map(
            section.start,
            physical,
            section.end - section.start,
            permission,
        );
    }
    *TABLES.lock() = Some(tables);
}

/// Loads the final tables on the calling CPU.
pub fn load() {
    let root = root();
    if let Ok(frame) = PhysFrame::from_start_address(x86_64::PhysAddr::new(root.address().0)) {
        // SAFETY: the tables map the image, the direct map and the current stack as the early tables did.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    }
}

/// Frame of the root table.
pub fn root() -> Mfn {
    TABLES.lock().as_ref().map_or(Mfn(0), |tables| tables.root)
}

/// Maps the first MiB at its own address, executable, for the trampoline of the application processors, or drops that.
pub fn set_low_identity(on: bool) {
    let mut guard = TABLES.lock();
    let Some(tables) = guard.as_mut() else { return };
    if on {
        for page in (0..0x10_0000).step_by(PAGE_SIZE) {
            tables.map_page(page, page, 0, PRESENT | WRITE);
        }
    } else {
        tables.write(tables.root, 0, 0);
        x86_64::instructions::tlb::flush_all();
    }
}

/// Allocates a stack of `size` bytes with an unmapped page below and above; returns its top.
pub fn new_stack(size: u64) -> u64 {
    let mut guard = TABLES.lock();
    let tables = guard.as_mut().expect("page tables are built before stacks");
    let bottom = tables.next_stack + PAGE_SIZE as u64;
    for offset in (0..size).step_by(PAGE_SIZE) {
        let frame = frames::allocate_zeroed_or_panic("a stack");
        tables.map(
            bottom + offset,
            frame.address().0,
            PAGE_SIZE as u64,
            Permission::Write,
        );
    }
    tables.next_stack = bottom + size + PAGE_SIZE as u64;
    bottom + size
}

/// Maps device registers uncached; returns the virtual address of `address`.
pub fn map_device(address: HostPhys, size: u64, permission: Permission) -> *mut u8 {
    let mut guard = TABLES.lock();
    let tables = guard
        .as_mut()
        .expect("page tables are built before devices");
    let first = address.0 & !(PAGE_SIZE as u64 - 1);
    let end = (address.0 + size).next_multiple_of(PAGE_SIZE as u64);
    // A large range begins where large pages fit.
    const LARGE_PAGE: u64 = 2 << 20;
    let base = if end - first >= LARGE_PAGE {
        tables.next_device.next_multiple_of(LARGE_PAGE) + first % LARGE_PAGE
    } else {
        tables.next_device
    };
    tables.map(base, first, end - first, permission);
    tables.next_device = base + (end - first) + PAGE_SIZE as u64;
    core::ptr::with_exposed_provenance_mut((base + (address.0 - first)) as usize)
}

/// Whether the direct map covers `address`.
pub fn direct_map_covers(address: HostPhys) -> bool {
    let guard = TABLES.lock();
    let Some(tables) = guard.as_ref() else {
        return address.0 < 1 << 32;
    };
    let virt = layout::DIRECT_MAP + address.0;
    let mut table = tables.root;
    for level in (0..4).rev() {
        let entry = tables.read(table, index(virt, level));
        if entry & PRESENT == 0 {
            return false;
        }
        if level == 0 || entry & LARGE != 0 {
            return true;
        }
        table = HostPhys(entry & ADDRESS).frame();
    }
    false
}

impl Tables {
    /// Maps a range with the largest pages that fit; ranges are page-aligned.
    fn map(&mut self, virt: u64, phys: u64, size: u64, permission: Permission) {
        let mut done = 0;
        while done < size {
            let (v, p, left) = (virt + done, phys + done, size - done);
            let level = [2, 1]
                .into_iter()
                .filter(|&level| level == 1 || self.gigabyte_pages)
                .find(|&level| {
                    let bytes = 1 << (12 + 9 * level);
                    (v | p) & (bytes - 1) == 0 && left >= bytes
                })
                .unwrap_or(0);
            self.map_page(v, p, level, permission.bits());
            done += 1 << (12 + 9 * level);
        }
    }

    fn map_page(&mut self, virt: u64, phys: u64, level: u32, bits: u64) {
        let mut table = self.root;
        for upper in (level + 1..4).rev() {
            let slot = index(virt, upper);
            let entry = self.read(table, slot);
            table = if entry & PRESENT != 0 {
                HostPhys(entry & ADDRESS).frame()
            } else {
                let fresh = frames::allocate_zeroed_or_panic("a page table");
                self.write(table, slot, fresh.address().0 | PRESENT | WRITE);
                fresh
            };
        }
        let large = if level > 0 { LARGE } else { 0 };
        self.write(table, index(virt, level), phys | bits | large);
    }

    fn read(&self, table: Mfn, slot: usize) -> u64 {
        // SAFETY: `table` is a page table of ours in the direct map, `slot` is below 512.
        unsafe {
            layout::direct_map_frame(table)
                .cast::<u64>()
                .add(slot)
                .read_volatile()
        }
    }

    fn write(&mut self, table: Mfn, slot: usize, entry: u64) {
        // SAFETY: as for `read`; the lock makes this the only writer.
        unsafe {
            layout::direct_map_frame(table)
                .cast::<u64>()
                .add(slot)
                .write_volatile(entry)
        }
    }
}

const fn index(virt: u64, level: u32) -> usize {
    (virt >> (12 + 9 * level)) as usize & 511
}
