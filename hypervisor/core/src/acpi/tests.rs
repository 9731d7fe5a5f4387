use std::collections::BTreeMap;

use super::*;
use crate::address::GuestPhys;
use proptest::prelude::*;

/// Sparse memory: blocks by address.
#[derive(Clone, Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl PhysicalRead for Memory {
    fn read(&self, address: HostPhys, into: &mut [u8]) -> bool {
        let Some((start, block)) = self.0.range(..=address.0).next_back() else {
            return false;
        };
        let offset = (address.0 - start) as usize;
        let Some(part) = offset
            .checked_add(into.len())
            .and_then(|end| block.get(offset..end))
        else {
            return false;
        };
        into.copy_from_slice(part);
        true
    }
}

fn host_madt() -> Madt {
    Madt {
        io_apics: vec![IoApicEntry {
            id: 2,
            address: HostPhys(0xFEC0_0000),
            gsi_base: 0,
        }],
        overrides: vec![
            Override {
                irq: 0,
                gsi: 2,
                flags: 0,
            },
            Override {
                irq: 9,
                gsi: 9,
                flags: 0xD,
            },
        ],
        nmi_sources: vec![NmiSource {
            gsi: 20,
            flags: 0xD,
        }],
        local_nmis: vec![
            LocalNmi {
                uid: None,
                lint: 1,
                flags: 5,
            },
            LocalNmi {
                uid: Some(7),
                lint: 1,
                flags: 0,
            },
        ],
        ..Madt::default()
    }
}

/// A table with that content behind its header, at that address.
fn table(signature: &[u8; 4], address: u64, content: &[u8]) -> Table {
    let mut bytes = vec![0; tables::HEADER];
    bytes.extend_from_slice(content);
    bytes[..4].copy_from_slice(signature);
    let length = bytes.len();
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[9] = sum(&bytes).wrapping_neg();
    Table {
        signature: *signature,
        address: HostPhys(address),
        length,
        bytes,
    }
}

fn fake_table(signature: &[u8; 4], address: u64) -> Table {
    table(signature, address, &[0; 28])
}

#[test]
fn dom0_gets_its_own_cpus_and_none_of_the_hypervisors_devices() {
    let host = Tables {
        list: vec![
            fake_table(b"FACP", 0x1000),
            fake_table(b"DMAR", 0x2000),
            fake_table(b"HPET", 0x3000),
            fake_table(b"APIC", 0x4000),
            fake_table(b"SPCR", 0x5000),
            fake_table(b"DBG2", 0x6000),
            fake_table(b"SRAT", 0x7000),
            fake_table(b"SLIT", 0x8000),
            fake_table(b"IVRS", 0x9000),
            fake_table(b"BGRT", 0xA000),
            fake_table(b"MCFG", 0xB000),
            fake_table(b"OEM1", 0xC000),
        ],
    };
    let built = build_dom0_tables(&host, &host_madt(), &[0, 2, 4], GuestPhys(0x8_0000));
    let mut memory = Memory::default();
    memory.0.insert(0x8_0000, built.bytes);
    for table in &host.list {
        memory.0.insert(table.address.0, table.bytes.clone());
    }
    let seen = Tables::read(&memory, HostPhys(built.rsdp.0)).expect("what we build is valid");
    let names: Vec<_> = seen.list.iter().map(|table| table.signature).collect();
    assert_eq!(names, [*b"APIC", *b"FACP", *b"MCFG", *b"OEM1"]);
    let madt = Madt::parse(&seen.list[0]);
    assert_eq!(
        madt.cpus
            .iter()
            .map(|cpu| (cpu.apic_id, cpu.uid))
            .collect::<Vec<_>>(),
        [(0, 0), (2, 1), (4, 2)]
    );
    let host = host_madt();
    assert_eq!(
        (madt.io_apics, madt.overrides, madt.nmi_sources),
        (host.io_apics, host.overrides, host.nmi_sources)
    );
    assert_eq!(
        madt.local_nmis,
        [host.local_nmis[0]],
        "one entry for a pin, for all CPUs"
    );
}

#[test]
fn wide_identifiers_get_x2apic_entries() {
    let ids: Vec<u32> = (0..300).map(|id| 2 * id).collect();
    let host = Tables::default();
    let built = build_dom0_tables(&host, &host_madt(), &ids, GuestPhys(0x8_0000));
    let mut memory = Memory::default();
    memory.0.insert(0x8_0000, built.bytes);
    let seen = Tables::read(&memory, HostPhys(0x8_0000)).expect("what we build is valid");
    let madt = Madt::parse(&seen.list[0]);
    let cpus: Vec<_> = madt.cpus.iter().map(|cpu| (cpu.uid, cpu.apic_id)).collect();
    assert_eq!(
        cpus,
        (0..300)
            .map(|uid| (uid, 2 * uid))
            .collect::<Vec<(u32, u32)>>()
    );
    assert_eq!(
        madt.local_nmis.len(),
        2,
        "for short and for long identifiers"
    );
}

#[test]
fn cpus_are_sorted_by_whether_they_can_be_used() {
    const CONTENT: &[u8] = &[
        0, 0, 0xE0, 0xFE, 1, 0, 0, 0, // local APIC address, flags
        0, 8, 0, 0, 1, 0, 0, 0, // enabled
        0, 8, 1, 2, 0, 0, 0, 0, // absent
        0, 8, 2, 4, 2, 0, 0, 0, // may come online
        0, 8, 3, 0xFF, 1, 0, 0, 0, // an unused place
        9, 16, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, // the first again
        9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, // x2APIC ID 256
        0x7F, 4, 0, 0, // of an unknown type
        3, 8, 13, 0, 21, 0, 0, 0, // NMI source
        10, 12, 5, 0, 3, 0, 0, 0, 1, 0, 0, 0, // local NMI of UID 3
        1, 3, 0, // too short for an I/O APIC
        2, 0, // no length: nothing behind it is read
        0, 8, 6, 6, 1, 0, 0, 0,
    ];
    let madt = Madt::parse(&table(b"APIC", 0x1000, CONTENT));
    let ids = |list: &[Cpu]| {
        list.iter()
            .map(|cpu| (cpu.uid, cpu.apic_id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&madt.cpus), [(0, 0), (5, 256)]);
    assert_eq!(ids(&madt.pluggable_cpus), [(2, 4)]);
    assert_eq!(madt.nmi_sources, [NmiSource { gsi: 21, flags: 13 }]);
    let local = LocalNmi {
        uid: Some(3),
        lint: 1,
        flags: 5,
    };
    assert_eq!(madt.local_nmis, [local]);
    assert!(madt.io_apics.is_empty());
}

/// The content of a FADT with these fields, each an offset in the table, a value and its size.
fn fadt(fields: &[(usize, u64, usize)]) -> Fadt {
    let mut content = vec![0; 244 - tables::HEADER];
    for &(offset, value, size) in fields {
        let at = offset - tables::HEADER;
        content[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Fadt::parse(&table(b"FACP", 0x1000, &content))
}

#[test]
fn fixed_registers_come_from_either_field() {
    let legacy = fadt(&[
        (40, 0x7FE0_0000, 4),
        (46, 9, 2),
        (48, 0xB2, 4),
        (56, 0x600, 4),
        (64, 0x604, 4),
        (76, 0x608, 4),
        (88, 4, 1),
        (89, 2, 1),
        (108, 0x32, 1),
        (112, 1 << 10 | 1 << 8, 4),
        (116, 1, 1),
        (120, 0xCF9, 8),
        (128, 0xF, 1),
    ]);
    assert_eq!(legacy.dsdt, HostPhys(0x7FE0_0000));
    assert_eq!(
        (legacy.sci, legacy.smi_command, legacy.century),
        (9, 0xB2, 0x32)
    );
    assert_eq!(
        (legacy.pm1a_event, legacy.pm1a_control, legacy.pm_timer),
        (0x600, 0x604, 0x608)
    );
    assert_eq!((legacy.pm1_event_length, legacy.pm1_control_length), (4, 2));
    assert!(legacy.timer_has_32_bits() && !legacy.is_hardware_reduced());
    let reset = Reset {
        register: Place::Port(0xCF9),
        value: 0xF,
    };
    assert_eq!(legacy.reset, Some(reset));

    let extended = fadt(&[
        (40, 0x1000, 4),
        (140, 0x1_0000_0000, 8),
        (172, 1, 1),
        (176, 0x1804, 8),
        (208, 0, 1),
        (212, 0xFED0_0000, 8),
        (116, 0, 1),
        (120, 0xFED8_0000, 8),
    ]);
    assert_eq!(extended.dsdt, HostPhys(0x1_0000_0000));
    assert_eq!(extended.pm1a_control, 0x1804);
    assert_eq!(extended.pm_timer, 0, "a timer in memory is no port");
    assert_eq!(extended.reset, None, "its flag says that it is not there");
    let short = Fadt::parse(&table(b"FACP", 0x1000, &[0; 40]));
    assert_eq!(short, Fadt::default());
}

#[test]
fn timer_and_console_are_found_where_they_are() {
    let mut content = [0; 20];
    content[8..16].copy_from_slice(&0xFED0_0000u64.to_le_bytes());
    let hpet = table(b"HPET", 0x1000, &content);
    assert_eq!(hpet_base(&hpet), Some(HostPhys(0xFED0_0000)));
    content[4] = 1;
    content[8..16].copy_from_slice(&0x3F8u64.to_le_bytes());
    let console = SerialConsole::parse(&table(b"SPCR", 0x1000, &content));
    let expected = SerialConsole {
        interface: 0,
        base: Place::Port(0x3F8),
    };
    assert_eq!(console, Some(expected));
    assert_eq!(hpet_base(&table(b"HPET", 0x1000, &content)), None);
    assert_eq!(hpet_base(&table(b"HPET", 0x1000, &[])), None);
}

#[test]
fn the_rsdt_is_used_where_the_xsdt_is_damaged() {
    let facp = fake_table(b"FACP", 0x1000);
    let host = Tables {
        list: vec![facp.clone()],
    };
    let mut block = build_dom0_tables(&host, &host_madt(), &[0], GuestPhys(0x8_0000)).bytes;
    let rsdt = table(b"RSDT", 0x2000, &0x1000u32.to_le_bytes());
    block[16..20].copy_from_slice(&0x2000u32.to_le_bytes());
    for (at, length) in [(8, 20), (32, 36)] {
        block[at] = 0;
        block[at] = sum(&block[..length]).wrapping_neg();
    }
    let mut memory = Memory::default();
    memory.0.insert(0x1000, facp.bytes);
    memory.0.insert(0x2000, rsdt.bytes);
    memory.0.insert(0x8_0000, block.clone());
    let names = |memory: &Memory| {
        let tables = Tables::read(memory, HostPhys(0x8_0000)).expect("a good RSDP");
        tables
            .list
            .iter()
            .map(|table| table.signature)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&memory), [*b"APIC", *b"FACP"]);
    block[36 + 12 + 20] ^= 1;
    memory.0.insert(0x8_0000, block);
    assert_eq!(names(&memory), [*b"FACP"]);
}

#[test]
fn only_what_the_hypervisor_reads_is_kept() {
    let host = Tables {
        list: vec![
            fake_table(b"SSDT", 0x1000),
            fake_table(b"FACP", 0x2000),
            fake_table(b"FACP", 0x3000),
        ],
    };
    let built = build_dom0_tables(&host, &host_madt(), &[0], GuestPhys(0x8_0000));
    let mut memory = Memory::default();
    memory.0.insert(0x8_0000, built.bytes);
    for table in &host.list {
        memory.0.insert(table.address.0, table.bytes.clone());
    }
    let seen = Tables::read(&memory, HostPhys(0x8_0000)).expect("what we build is valid");
    let kept: Vec<_> = seen.list[1..]
        .iter()
        .map(|table| (table.length, table.bytes.len()))
        .collect();
    assert_eq!(kept, [(64, 0), (64, 64), (64, 0)]);
}

#[test]
fn the_search_finds_an_rsdp_in_either_area() {
    let block =
        build_dom0_tables(&Tables::default(), &host_madt(), &[0], GuestPhys(0xF_5A40)).bytes;
    let mut memory = Memory::default();
    memory.0.insert(0x40E, vec![0xC0, 0x9F]);
    memory.0.insert(0x9_FC00, vec![0; 1024]);
    memory.0.insert(0xE_0000, vec![0; 0x2_0000]);
    assert_eq!(find_rsdp(&memory), None);
    let mut bios = vec![0; 0x2_0000];
    bios[0x1_5A40..][..block.len()].copy_from_slice(&block);
    memory.0.insert(0xE_0000, bios);
    assert_eq!(find_rsdp(&memory), Some(HostPhys(0xF_5A40)));
    let mut ebda = vec![0; 1024];
    ebda[0x20..][..block.len()].copy_from_slice(&block);
    memory.0.insert(0x9_FC00, ebda);
    assert_eq!(find_rsdp(&memory), Some(HostPhys(0x9_FC20)));
}

#[test]
fn iommu_registers_are_found_and_broken_structures_end_the_search() {
    let mut content = vec![0; 12];
    // DRHD of one page; RMRR; DRHD of four pages.
    content.extend([0, 0, 16, 0, 0, 0, 0, 0]);
    content.extend(0xFED9_0000u64.to_le_bytes());
    content.extend([1, 0, 24, 0]);
    content.extend([0; 20]);
    content.extend([0, 0, 16, 0, 1, 2, 0, 0]);
    content.extend(0xFED9_1000u64.to_le_bytes());
    content.extend([0, 0, 3, 0]);
    let units = vtd_units(&table(b"DMAR", 0x1000, &content));
    assert_eq!(units, [0xFED9_0000..0xFED9_1000, 0xFED9_1000..0xFED9_5000]);

    let mut content = vec![0; 12];
    content.extend([0x10, 0, 24, 0, 0, 0, 0, 0]);
    content.extend(0xFEB8_0000u64.to_le_bytes());
    content.extend([0; 8]);
    content.extend([0x11, 0, 40, 0, 0, 0, 0, 0]);
    content.extend(0xFEB8_0000u64.to_le_bytes());
    content.extend([0; 8]);
    content.extend((1u64 << 9).to_le_bytes());
    content.extend([0; 8]);
    let units = amd_units(&table(b"IVRS", 0x1000, &content));
    assert_eq!(units.len(), 1);
    assert_eq!(units[0], 0xFEB8_0000..0xFEC0_0000);
    assert!(amd_units(&table(b"IVRS", 0x1000, &[])).is_empty());
}

#[test]
fn isa_interrupts_follow_their_overrides() {
    assert_eq!(host_madt().isa_gsi(0), (2, 0));
    assert_eq!(host_madt().isa_gsi(4), (4, 0));
    assert_eq!(host_madt().isa_gsi(9), (9, 0xD));
}

#[test]
fn level_triggered_interrupts_are_pcis() {
    let mut madt = host_madt();
    madt.add_level_triggered(1 << 9 | 1 << 11);
    assert_eq!(madt.isa_gsi(9), (9, 0xD));
    assert_eq!(madt.isa_gsi(11), (11, 0xF));
    let known = madt.clone();
    madt.add_level_triggered(0xFFFF);
    assert_eq!(madt, known);
}

#[test]
fn the_s5_package_is_found_in_both_spellings() {
    // Name (_S5_, Package (4) { 5, 5, 0, 0 }) as a compiler writes it, and with bare constants.
    let bytes = b"..\x08_S5_\x12\x08\x04\x0A\x05\x0A\x05\x00\x00";
    assert_eq!(sleep_type_s5(bytes), Some((5, 5)));
    assert_eq!(
        sleep_type_s5(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"),
        Some((0, 0))
    );
    // After a mention that is no such package; a word and a double word.
    let bytes = b"_S5_\x12\xFF._S5_\x12\x0B\x02\x0B\x05\x00\x0C\x07\x00\x00\x00";
    assert_eq!(sleep_type_s5(bytes), Some((5, 7)));
    assert_eq!(sleep_type_s5(b"_S5_\x12\x04\x01\x0A\x05"), Some((5, 0)));
    assert_eq!(sleep_type_s5(b"_S5_\x12\x02\x00"), None);
    assert_eq!(sleep_type_s5(b"nothing here"), None);
    assert_eq!(sleep_type_s5(b"_S5_\x12"), None);
}

#[test]
fn a_table_with_a_wrong_checksum_is_left_out() {
    let mut host = Tables {
        list: vec![fake_table(b"FACP", 0x1000)],
    };
    let built = build_dom0_tables(&host, &host_madt(), &[0], GuestPhys(0x8_0000));
    let mut memory = Memory::default();
    memory.0.insert(0x8_0000, built.bytes);
    host.list[0].bytes[40] ^= 1;
    memory.0.insert(0x1000, host.list[0].bytes.clone());
    let seen = Tables::read(&memory, HostPhys(0x8_0000)).expect("the RSDP is good");
    assert!(seen.find(b"FACP").is_none() && seen.find(b"APIC").is_some());
}

proptest! {
    #[test]
    fn damaged_tables_never_panic(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
        let host = Tables { list: vec![fake_table(b"FACP", 0x1000)] };
        let mut block = build_dom0_tables(&host, &host_madt(), &[0, 1], GuestPhys(0x8_0000)).bytes;
        let at = at % block.len();
        block[at] = value;
        let table = Table { bytes: block[..cut.min(block.len())].to_vec(), ..fake_table(b"APIC", 0) };
        read_all(&table);
        let mut memory = Memory::default();
        memory.0.insert(0x8_0000, block);
        Tables::read(&memory, HostPhys(0x8_0000));
        find_rsdp(&memory);
    }

    #[test]
    fn any_content_can_be_read(content in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..12, ids in prop::collection::vec(any::<u32>(), 0..20)) {
        let mut content = content;
        if let Some(first) = content.get_mut(8) {
            *first = kind;
        }
        let table = table(b"APIC", 0x1000, &content);
        read_all(&table);
        let built = build_dom0_tables(&Tables::default(), &Madt::parse(&table), &ids, GuestPhys(0x8_0000));
        let mut memory = Memory::default();
        memory.0.insert(0x8_0000, built.bytes);
        let seen = Tables::read(&memory, HostPhys(0x8_0000)).expect("what we build is valid");
        prop_assert_eq!(seen.list.len(), 1);
    }

    #[test]
    fn any_package_can_be_read(tail in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut dsdt = b"_S5_\x12".to_vec();
        dsdt.extend_from_slice(&tail);
        sleep_type_s5(&dsdt);
    }
}

fn read_all(table: &Table) {
    let madt = Madt::parse(table);
    madt.isa_gsi(9);
    Fadt::parse(table);
    McfgSegment::parse_all(table);
    hpet_base(table);
    vtd_units(table);
    amd_units(table);
    SerialConsole::parse(table);
    sleep_type_s5(&table.bytes);
}
