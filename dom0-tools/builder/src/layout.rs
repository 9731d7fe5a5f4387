//! Where everything is in a guest's memory.

use std::ops::Range;

use oxen_xen::memory::MemoryRange;

use crate::PAGE_SIZE;
use crate::error::BuildError;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// RAM below 4 GiB ends here at the latest: above are the tables, the special pages, the local APIC, and room for devices.
pub const LOW_RAM_END: u64 = 0xF000_0000;
/// RAM that does not fit below goes on here.
pub const HIGH_RAM_START: u64 = 4 * GIB;
/// ACPI tables (`ACPI_INFO_PHYSICAL_ADDRESS`).
pub const ACPI_START: u64 = 0xFC00_0000;
/// Rings and other pages shared with the control domain, as Xen's tools place them.
pub const SPECIAL_PAGES: Range<u64> = 0xFEFF_8000..0xFF00_0000;
/// Guest frame number of the xenstore ring.
pub const STORE_GFN: u64 = 0xF_EFFC;
/// Guest frame number of the console ring.
pub const CONSOLE_GFN: u64 = 0xF_EFFF;
/// What a guest reads before it has page tables of its own lies below: Linux maps no more by then.
const EARLY_END: u64 = GIB;
/// Pages that the limit of a guest's memory leaves for what is not RAM: tables and rings.
pub const EXTRA_PAGES: u64 = 256;

/// E820 types.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const ACPI: u32 = 3;

/// Guest-physical places, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM from 0 on.
    pub low_ram: Range<u64>,
    /// RAM above 4 GiB; empty in most guests.
    pub high_ram: Range<u64>,
    /// Kernel with its bss.
    pub kernel: Range<u64>,
    /// Start information and what it points to.
    pub start_info: Range<u64>,
    /// Ramdisk, or an empty range.
    pub ramdisk: Range<u64>,
    /// ACPI tables.
    pub acpi: Range<u64>,
}

/// Sizes that a layout is made for, in bytes.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// RAM, a multiple of 1 MiB.
    pub memory: u64,
    /// Where the kernel says that it goes.
    pub kernel: Range<u64>,
    /// Start information and what it points to.
    pub start_info: u64,
    /// Ramdisk; 0 if there is none.
    pub ramdisk: u64,
    /// ACPI tables.
    pub acpi: u64,
}

impl Layout {
    /// Places everything: the start information behind the kernel, the ramdisk behind that.
    ///
    /// # Errors
    /// [`BuildError::TooSmall`] and [`BuildError::Misplaced`].
    pub fn plan(sizes: &Sizes) -> Result<Self, BuildError> {
        let low_end = sizes.memory.min(LOW_RAM_END);
        let kernel = sizes.kernel.clone();
        let start_info = place(kernel.end, sizes.start_info);
        let ramdisk = place(start_info.end, sizes.ramdisk);
        let misplaced = BuildError::Misplaced {
            start: kernel.start,
            end: kernel.end,
            limit: EARLY_END,
        };
        if kernel.is_empty() || start_info.end > EARLY_END {
            return Err(misplaced);
        }
        if ramdisk.end > low_end {
            if ramdisk.end > LOW_RAM_END {
                return Err(BuildError::Config(format!(
                    "the ramdisk of {} MiB does not fit below 4 GiB; use a smaller one",
                    sizes.ramdisk.div_ceil(MIB)
                )));
            }
            return Err(BuildError::TooSmall {
                memory_mib: sizes.memory / MIB,
                needed_mib: ramdisk.end.div_ceil(MIB),
            });
        }
        Ok(Self {
            low_ram: 0..low_end,
            high_ram: HIGH_RAM_START..HIGH_RAM_START.saturating_add(sizes.memory - low_end),
            kernel,
            start_info,
            ramdisk,
            acpi: place(ACPI_START, sizes.acpi),
        })
    }

    /// The map that the guest is told, in ascending order.
    pub fn memory_map(&self) -> Vec<MemoryRange> {
        let acpi = self.acpi.start..up(self.acpi.end);
        [
            (&self.low_ram, RAM),
            (&acpi, ACPI),
            (&SPECIAL_PAGES, RESERVED),
            (&self.high_ram, RAM),
        ]
        .into_iter()
        .filter(|(range, _)| !range.is_empty())
        .map(|(range, kind)| MemoryRange {
            address: range.start,
            size: range.end - range.start,
            kind,
        })
        .collect()
    }

    /// Pages of RAM.
    pub fn ram_pages(&self) -> u64 {
        (self.low_ram.end - self.low_ram.start + self.high_ram.end - self.high_ram.start)
            / PAGE_SIZE
    }

    /// Frame numbers of the pages that are not RAM but have memory: tables and rings.
    pub fn extra_gfns(&self) -> Vec<u64> {
        let acpi = self.acpi.start / PAGE_SIZE..up(self.acpi.end) / PAGE_SIZE;
        acpi.chain([STORE_GFN, CONSOLE_GFN]).collect()
    }
}

fn up(address: u64) -> u64 {
    address.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

/// `size` bytes from the first page at or after `from`.
fn place(from: u64, size: u64) -> Range<u64> {
    let start = up(from);
    start..start.saturating_add(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(memory_mib: u64) -> Sizes {
        Sizes {
            memory: memory_mib * MIB,
            kernel: 0x100_0000..0x4A0_0000,
            start_info: 300,
            ramdisk: 30 * MIB + 5,
            acpi: 700,
        }
    }

    #[test]
    fn a_small_guest_has_everything_in_low_memory() {
        let layout = Layout::plan(&sizes(256)).expect("it fits");
        assert_eq!(layout.low_ram, 0..256 * MIB);
        assert!(layout.high_ram.is_empty());
        assert_eq!(layout.start_info, 0x4A0_0000..0x4A0_012C);
        assert_eq!(layout.ramdisk.start, 0x4A0_1000);
        assert_eq!(layout.ram_pages(), 65536);
        assert_eq!(layout.extra_gfns(), [0xF_C000, 0xF_EFFC, 0xF_EFFF]);
        let kinds: Vec<u32> = layout.memory_map().iter().map(|range| range.kind).collect();
        assert_eq!(kinds, [RAM, ACPI, RESERVED]);
    }

    #[test]
    fn what_does_not_fit_says_how_much_it_needs() {
        match Layout::plan(&sizes(64)) {
            Err(BuildError::TooSmall { needed_mib, .. }) => {
                assert!(Layout::plan(&sizes(needed_mib)).is_ok());
                assert!(Layout::plan(&sizes(needed_mib - 1)).is_err());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_kernel_outside_of_early_memory_is_refused() {
        let high = Sizes {
            kernel: 0x4000_0000..0x4100_0000,
            ..sizes(4096)
        };
        assert!(matches!(
            Layout::plan(&high),
            Err(BuildError::Misplaced { .. })
        ));
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_no_memory_is_lost(
            memory_mib in 1_u64..200_000,
            kernel_start in 0_u64..2 * GIB,
            kernel_size in 1_u64..200 * MIB,
            start_info in 56_u64..8192,
            ramdisk in 0_u64..5 * GIB,
            acpi in 1_u64..8192,
        ) {
            let kernel = kernel_start..kernel_start + kernel_size;
            let sizes = Sizes { memory: memory_mib * MIB, kernel, start_info, ramdisk, acpi };
            if let Ok(layout) = Layout::plan(&sizes) {
                prop_assert_eq!(layout.ram_pages() * PAGE_SIZE, memory_mib * MIB);
                prop_assert!(layout.kernel.end <= layout.start_info.start);
                prop_assert!(layout.start_info.end <= layout.ramdisk.start);
                prop_assert!(layout.start_info.end <= GIB);
                prop_assert!(layout.ramdisk.end <= layout.low_ram.end);
                let map = layout.memory_map();
                prop_assert!(map.windows(2).all(|pair| pair[0].address + pair[0].size <= pair[1].address));
            }
        }
    }
}
