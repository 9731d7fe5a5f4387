//! The first decisions about memory: what is RAM, what of it is taken already, where allocator and page tables go.

use alloc::vec::Vec;

use oxen_core::address::{HostPhys, Mfn, PAGE_SIZE};
use oxen_core::memory::frames::MAX_FRAMES;
use oxen_core::memory::ranges::{E820_RAM, MapEntry, RangeSet, sanitize};

use super::loader::{Loaded, Module};
use crate::cpu::features;
use crate::domain::dom0::KERNEL_WINDOW;
use crate::memory::{frames, layout, paging};
use crate::stop;

const PAGE: u64 = PAGE_SIZE as u64;
const LOW: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

/// What dom0's builder needs to know.
pub struct Plan {
    /// The machine's memory map, sorted and disjoint.
    pub map: Vec<MapEntry>,
    /// RAM that the allocator does not have: below 1 MiB, and where dom0's kernel goes.
    pub reserved: RangeSet,
    /// dom0's kernel, in memory of ours.
    pub kernel: Option<Vec<u8>>,
    /// dom0's RAM disk, in memory of ours.
    pub initrd: Option<Vec<u8>>,
}

/// Sets up frame allocator and page tables, and brings the modules out of the way of dom0.
pub fn prepare(loaded: &Loaded) -> Plan {
    let entries: Vec<MapEntry> = loaded
        .memory
        .iter()
        .filter_map(|area| {
            let end = area.base.checked_add(area.length)?;
            (area.length > 0).then_some(MapEntry {
                range: area.base..end,
                kind: area.kind,
            })
        })
        .collect();
    let map = sanitize(&entries);
    let ram: RangeSet = map
        .iter()
        .filter(|entry| entry.kind == E820_RAM)
        .map(|entry| entry.range.clone())
        .collect();
    let ram = ram.shrunk_to(PAGE);
    log::info!(
        "{} MiB of RAM in {} ranges",
        ram.total() >> 20,
        ram.iter().count()
    );

    let mut free = ram.clone();
    let in_use = in_use(loaded);
    for range in in_use.iter() {
        free.remove(range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE));
    }
    let reserved = reserve_for_dom0(&ram);
    free.remove(0..LOW);
    free.remove(KERNEL_WINDOW);

    let top = ram.iter().last().map_or(0, |range| range.end);
    let end = Mfn((top / PAGE).min(MAX_FRAMES as u64));
    let size = frames::storage_size(end);
    let Some(storage) = free.find_last(size, PAGE, FOUR_GIB) else {
        stop::refuse_boot(format_args!(
            "no {} KiB of free RAM below 4 GiB for the frame allocator",
            size >> 10
        ));
    };
    free.remove(storage..storage + size);
    // SAFETY: taken out of the free RAM just now; the early tables map all memory below 4 GiB.
    unsafe { frames::init(HostPhys(storage), end) };
    for range in free.iter() {
        frames::add(HostPhys(range.start).frame(), HostPhys(range.end).frame());
    }
    frames::set_ram(ram.clone());

    for section in layout::image_sections() {
        log::debug!("{}: {:#x}-{:#x}", section.name, section.start, section.end);
    }
    paging::build(direct_map_ranges(&map).iter(), features::gigabyte_pages());
    paging::load();
    let copy = |module: &Module| bytes_of(module).map(<[u8]>::to_vec);
    let mut modules = loaded.modules.iter().map(copy);
    let (kernel, initrd) = (modules.next().flatten(), modules.next().flatten());
    for range in given_back(loaded, &ram).iter() {
        frames::add(HostPhys(range.start).frame(), HostPhys(range.end).frame());
    }
    Plan {
        map,
        reserved,
        kernel,
        initrd,
    }
}

/// Whole pages of the modules, which have been copied, and of nothing else that is in use.
fn given_back(loaded: &Loaded, ram: &RangeSet) -> RangeSet {
    let mut ranges: RangeSet = loaded
        .modules
        .iter()
        .flat_map(|module| ram.within(module.start.0..module.start.0 + module.size))
        .collect();
    for range in in_use_for_good(loaded)
        .iter()
        .chain([0..LOW, KERNEL_WINDOW])
    {
        ranges.remove(range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE));
    }
    ranges.shrunk_to(PAGE)
}

/// What the loader put into RAM, and the image.
fn in_use(loaded: &Loaded) -> RangeSet {
    let mut ranges = in_use_for_good(loaded);
    for module in &loaded.modules {
        ranges.insert(module.start.0..module.start.0 + module.size);
    }
    ranges
}

/// All of that but the modules.
fn in_use_for_good(loaded: &Loaded) -> RangeSet {
    let (information, size) = loaded.information;
    let mut ranges: RangeSet = [layout::image_range(), information.0..information.0 + size]
        .into_iter()
        .collect();
    for (start, size) in loaded.symbols.iter().flat_map(|tables| tables.ranges()) {
        ranges.insert(start.0..start.0 + size);
    }
    ranges
}

/// dom0's RAM from the start: conventional memory, and its kernel's window. What the loader left there (modules) has been
/// copied by the time dom0 gets it; the image itself never lies there.
fn reserve_for_dom0(ram: &RangeSet) -> RangeSet {
    ram.within(0..LOW)
        .chain(ram.within(KERNEL_WINDOW))
        .collect()
}

/// All that is RAM or firmware tables, and the first MiB, where the firmware keeps small things everywhere.
fn direct_map_ranges(map: &[MapEntry]) -> RangeSet {
    const ACPI: u32 = 3;
    const NVS: u32 = 4;
    let mut ranges: RangeSet = map
        .iter()
        .filter(|entry| matches!(entry.kind, E820_RAM | ACPI | NVS))
        .map(|entry| entry.range.start & !(PAGE - 1)..entry.range.end.next_multiple_of(PAGE))
        .collect();
    ranges.insert(0..LOW);
    ranges
}

fn bytes_of(module: &Module) -> Option<&'static [u8]> {
    let end = module.start.checked_add(module.size)?;
    if module.size == 0
        || !paging::direct_map_covers(module.start)
        || !paging::direct_map_covers(HostPhys(end.0 - 1))
    {
        return None;
    }
    // SAFETY: the loader placed the module there; the range is kept from the allocator until it has been copied.
    Some(unsafe {
        core::slice::from_raw_parts(layout::direct_map(module.start), module.size as usize)
    })
}
