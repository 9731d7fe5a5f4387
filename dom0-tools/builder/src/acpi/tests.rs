use super::*;
use proptest::prelude::*;

const BASE: u64 = 0xFC00_0000;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

fn pointer(bytes: &[u8], at: usize) -> usize {
    let address = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    (address - BASE) as usize
}

/// The table at an offset, its checksum verified.
fn table_at(block: &[u8], at: usize) -> &[u8] {
    let size = u32::from_le_bytes(block[at + 4..at + 8].try_into().expect("four bytes"));
    let table = &block[at..at + size as usize];
    assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
    table
}

#[test]
fn the_root_pointer_leads_to_every_table() {
    let block = build(BASE, 4);
    assert_eq!(&block[..8], b"RSD PTR ");
    assert_eq!((sum(&block[..20]), sum(&block[..36])), (0, 0));
    let xsdt = table_at(&block, pointer(&block, 24));
    assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
    let fadt = table_at(&block, pointer(xsdt, 36));
    assert_eq!((&fadt[..4], fadt.len(), fadt[8]), (&b"FACP"[..], 276, 6));
    assert_eq!(fadt[114] & 1 << 4, 1 << 4, "hardware-reduced");
    let dsdt = table_at(&block, pointer(fadt, 140));
    assert_eq!(&dsdt[..4], b"DSDT");
    let madt = table_at(&block, pointer(xsdt, 44));
    assert_eq!((&madt[..4], madt.len()), (&b"APIC"[..], 44 + 4 * 8));
    assert_eq!(madt[44 + 3 * 8..], [0, 8, 3, 3, 1, 0, 0, 0]);
}

/// `OXEN_TEST_ACPI`: a directory to write the tables to, for `iasl -d`.
#[test]
fn tables_can_be_written_out() {
    let Ok(directory) = std::env::var("OXEN_TEST_ACPI") else {
        println!("skipped: OXEN_TEST_ACPI names no directory");
        return;
    };
    let block = build(BASE, 4);
    let xsdt = pointer(&block, 24);
    let fadt = pointer(table_at(&block, xsdt), 36);
    let dsdt = pointer(table_at(&block, fadt), 140);
    let madt = pointer(table_at(&block, xsdt), 44);
    for at in [xsdt, fadt, dsdt, madt] {
        let table = table_at(&block, at);
        let name = String::from_utf8_lossy(&table[..4]).into_owned();
        std::fs::write(format!("{directory}/{name}.dat"), table).expect("a writable directory");
    }
}

proptest! {
    #[test]
    fn any_number_of_vcpus_gives_sound_tables(vcpus in 1_u32..=MAX_VCPUS) {
        let block = build(BASE, vcpus);
        let xsdt = table_at(&block, pointer(&block, 24));
        let madt = table_at(&block, pointer(xsdt, 44));
        prop_assert_eq!(madt.len(), 44 + 8 * vcpus as usize);
        prop_assert!(madt[44..].chunks(8).enumerate().all(|(i, entry)| usize::from(entry[2]) == i));
    }
}
