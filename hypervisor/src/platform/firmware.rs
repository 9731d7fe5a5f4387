//! What the firmware's tables say about this machine.

use core::ops::Range;

use oxen_core::acpi::{
    Fadt, Madt, McfgSegment, PhysicalRead, Tables, amd_units, find_rsdp, hpet_base, sleep_type_s5,
    vtd_units,
};
use oxen_core::address::HostPhys;
use spin::Once;

use super::{pm_timer, power};
use crate::interrupt::pic;
use crate::memory::layout;
use crate::memory::paging::{self, Permission};
use crate::stop;

/// The tables and what was read from them.
pub struct Firmware {
    /// All tables.
    pub tables: Tables,
    /// CPUs and I/O APICs.
    pub madt: Madt,
    /// Memory-mapped configuration space.
    pub mcfg: alloc::vec::Vec<McfgSegment>,
    /// Registers that no domain reaches: the IOMMUs' and the HPET's.
    pub kept: alloc::vec::Vec<Range<u64>>,
}

static FIRMWARE: Once<Firmware> = Once::new();

/// Physical memory through the direct map, or a mapping made for the purpose where tables lie outside of RAM.
pub struct Memory;

impl PhysicalRead for Memory {
    fn read(&self, address: HostPhys, into: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(into.len() as u64) else {
            return false;
        };
        let covered = paging::direct_map_covers(address)
            && paging::direct_map_covers(HostPhys(end.0.saturating_sub(1)));
        let from = if covered {
            layout::direct_map(address)
        } else {
            paging::map_device(address, into.len() as u64, Permission::Read)
        };
        // SAFETY: the range is mapped, by the direct map or just now; tables are bytes that nobody writes at this time.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        true
    }
}

/// Reads the tables. A machine without them is refused: nothing would say where its CPUs and interrupts are.
pub fn read(rsdp: Option<HostPhys>) -> &'static Firmware {
    FIRMWARE.call_once(|| {
        let tables = rsdp
            .or_else(|| find_rsdp(&Memory))
            .and_then(|rsdp| Tables::read(&Memory, rsdp))
            .unwrap_or_else(|| {
                stop::refuse_boot(format_args!(
                    "no valid ACPI tables; enable ACPI in the firmware setup"
                ))
            });
        let mut madt = match tables.find(b"APIC") {
            Some(table) => Madt::parse(table),
            None => stop::refuse_boot(format_args!(
                "ACPI has no MADT: no CPUs and I/O APICs are described"
            )),
        };
        madt.add_level_triggered(pic::edge_level());
        let fadt = tables.find(b"FACP").map(Fadt::parse).unwrap_or_default();
        let mcfg = tables
            .find(b"MCFG")
            .map(McfgSegment::parse_all)
            .unwrap_or_default();
        pm_timer::set_port(fadt.pm_timer);
        match read_dsdt(&fadt).and_then(|dsdt| sleep_type_s5(&dsdt)) {
            Some(sleep_types) => power::set_sleep_control(power::SleepControl {
                pm1a: fadt.pm1a_control,
                pm1b: fadt.pm1b_control,
                sleep_types,
            }),
            None => log::warn!(
                "ACPI describes no soft-off state: the machine will halt instead of powering off"
            ),
        }
        let kept = kept_registers(&tables);
        Firmware {
            tables,
            madt,
            mcfg,
            kept,
        }
    })
}

/// The tables, once read.
pub fn get() -> Option<&'static Firmware> {
    FIRMWARE.get()
}

fn kept_registers(tables: &Tables) -> alloc::vec::Vec<Range<u64>> {
    const HPET_SIZE: u64 = 4096;
    let mut kept = tables.find(b"DMAR").map(vtd_units).unwrap_or_default();
    kept.extend(tables.find(b"IVRS").map(amd_units).unwrap_or_default());
    if !kept.is_empty() {
        log::info!(
            "{} IOMMUs are left as the firmware left them, out of dom0's reach",
            kept.len()
        );
    }
    let hpet = tables.find(b"HPET").and_then(hpet_base);
    kept.extend(hpet.map(|base| base.0..base.0 + HPET_SIZE));
    kept
}

fn read_dsdt(fadt: &Fadt) -> Option<alloc::vec::Vec<u8>> {
    const LARGEST: u32 = 4 << 20;
    let mut header = [0; 8];
    if fadt.dsdt.0 == 0 || !Memory.read(fadt.dsdt, &mut header) {
        return None;
    }
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if length > LARGEST {
        return None;
    }
    let mut bytes = alloc::vec![0; length as usize];
    Memory.read(fadt.dsdt, &mut bytes).then_some(bytes)
}
