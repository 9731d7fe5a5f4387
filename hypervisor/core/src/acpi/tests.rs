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
        cpus: vec![],
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
    }
}

fn fake_table(signature: &[u8; 4], address: u64) -> Table {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(signature);
    bytes[4] = 64;
    bytes[9] = sum(&bytes).wrapping_neg();
    Table {
        signature: *signature,
        address: HostPhys(address),
        bytes,
    }
}

#[test]
fn dom0_gets_its_own_cpus_and_none_of_the_hypervisors_devices() {
    let host = Tables {
        list: vec![
            fake_table(b"FACP", 0x1000),
            fake_table(b"DMAR", 0x2000),
            fake_table(b"HPET", 0x3000),
            fake_table(b"APIC", 0x4000),
        ],
    };
    let built = build_dom0_tables(&host, &host_madt(), &[0, 2, 4], GuestPhys(0x8_0000));
    let mut memory = Memory::default();
    memory.0.insert(0x8_0000, built.bytes);
    memory.0.insert(0x1000, host.list[0].bytes.clone());
    let seen = Tables::read(&memory, HostPhys(built.rsdp.0)).expect("what we build is valid");
    let names: Vec<_> = seen.list.iter().map(|table| table.signature).collect();
    assert_eq!(names, [*b"APIC", *b"FACP"]);
    let madt = Madt::parse(&seen.list[0]);
    assert_eq!(
        madt.cpus
            .iter()
            .map(|cpu| (cpu.apic_id, cpu.uid))
            .collect::<Vec<_>>(),
        [(0, 0), (2, 1), (4, 2)]
    );
    assert_eq!(
        (madt.io_apics, madt.overrides),
        (host_madt().io_apics, host_madt().overrides)
    );
}

#[test]
fn isa_interrupts_follow_their_overrides() {
    assert_eq!(host_madt().isa_gsi(0), (2, 0));
    assert_eq!(host_madt().isa_gsi(4), (4, 0));
    assert_eq!(host_madt().isa_gsi(9), (9, 0xD));
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
        let table = Table { signature: *b"APIC", address: HostPhys(0), bytes: block[..cut.min(block.len())].to_vec() };
        Madt::parse(&table);
        Fadt::parse(&table);
        McfgSegment::parse_all(&table);
        sleep_type_s5(&table.bytes);
        let mut memory = Memory::default();
        memory.0.insert(0x8_0000, block);
        Tables::read(&memory, HostPhys(0x8_0000));
        find_rsdp(&memory);
    }
}
