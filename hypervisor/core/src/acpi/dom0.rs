//! dom0's tables: its own RSDP, XSDT and MADT; the machine's other tables where they lie.
//!
//! What describes the hypervisor's own devices (DMAR, IVRS, HPET, SPCR, DBG2), or physical CPUs that are not dom0's (SRAT,
//! SLIT), is left out, and so is whatever is not known to be harmless.

use alloc::vec::Vec;

use super::tables::HEADER;
use super::{Madt, Tables, sum};
use crate::address::GuestPhys;

/// Tables that dom0 sees as they are. DSDT and FACS are reached through FACP.
const PASSED: [&[u8; 4]; 13] = [
    b"FACP", b"SSDT", b"PSDT", b"SBST", b"MCFG", b"SLIC", b"MSDM", b"WDAT", b"FPDT", b"S3PT",
    b"TCPA", b"TPM2", b"VFCT",
];

/// Bytes of a revision-2 RSDP.
const RSDP: usize = 36;

/// The tables in one block, for a given address.
#[derive(Clone, Debug)]
pub struct Dom0Tables {
    /// The block.
    pub bytes: Vec<u8>,
    /// Where its RSDP lies.
    pub rsdp: GuestPhys,
}

/// Builds dom0's tables for a block at `base`, with one local APIC for each of `apic_ids`, whose places are the vCPUs'
/// numbers and processor UIDs.
pub fn build_dom0_tables(
    host: &Tables,
    madt: &Madt,
    apic_ids: &[u32],
    base: GuestPhys,
) -> Dom0Tables {
    let madt = build_madt(madt, apic_ids);
    let passed = host
        .list
        .iter()
        .filter(|table| is_passed(&table.signature))
        .map(|table| table.address.0);
    let xsdt_at = RSDP.next_multiple_of(16);
    let count = 1 + passed.clone().count();
    let madt_at = (xsdt_at + HEADER + 8 * count).next_multiple_of(16);
    let mut pointers = Vec::with_capacity(8 * count);
    for address in core::iter::once(base.0 + madt_at as u64).chain(passed) {
        pointers.extend_from_slice(&address.to_le_bytes());
    }
    let xsdt = table(b"XSDT", 1, &pointers);

    let mut rsdp = Vec::with_capacity(RSDP);
    rsdp.extend_from_slice(b"RSD PTR \0OXEN  \x02");
    rsdp.extend_from_slice(&0u32.to_le_bytes());
    rsdp.extend_from_slice(&(RSDP as u32).to_le_bytes());
    rsdp.extend_from_slice(&(base.0 + xsdt_at as u64).to_le_bytes());
    rsdp.extend_from_slice(&[0; 4]);
    rsdp[8] = sum(&rsdp[..20]).wrapping_neg();
    rsdp[32] = sum(&rsdp).wrapping_neg();

    let mut bytes = rsdp;
    bytes.resize(xsdt_at, 0);
    bytes.extend_from_slice(&xsdt);
    bytes.resize(madt_at, 0);
    bytes.extend_from_slice(&madt);
    Dom0Tables { bytes, rsdp: base }
}

fn is_passed(signature: &[u8; 4]) -> bool {
    PASSED.contains(&signature) || signature.starts_with(b"OEM")
}

/// A MADT with dom0's vCPUs, the machine's I/O APICs (emulated at the same places) and its interrupt overrides.
fn build_madt(host: &Madt, apic_ids: &[u32]) -> Vec<u8> {
    const LOCAL_APIC: u32 = 0xFEE0_0000;
    const ENABLED: u32 = 1;
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    // No PIC behind it.
    body.extend_from_slice(&0u32.to_le_bytes());
    for (uid, &id) in apic_ids.iter().enumerate() {
        match short_ids(uid, id) {
            Some((uid, id)) => {
                body.extend_from_slice(&[0, 8, uid, id]);
                body.extend_from_slice(&ENABLED.to_le_bytes());
            }
            None => {
                body.extend_from_slice(&[9, 16, 0, 0]);
                for word in [id, ENABLED, uid as u32] {
                    body.extend_from_slice(&word.to_le_bytes());
                }
            }
        }
    }
    for apic in &host.io_apics {
        body.extend_from_slice(&[1, 12, apic.id, 0]);
        body.extend_from_slice(&(apic.address.0 as u32).to_le_bytes());
        body.extend_from_slice(&apic.gsi_base.to_le_bytes());
    }
    for entry in &host.overrides {
        body.extend_from_slice(&[2, 10, 0, entry.irq]);
        body.extend_from_slice(&entry.gsi.to_le_bytes());
        body.extend_from_slice(&entry.flags.to_le_bytes());
    }
    for source in &host.nmi_sources {
        body.extend_from_slice(&[3, 8]);
        body.extend_from_slice(&source.flags.to_le_bytes());
        body.extend_from_slice(&source.gsi.to_le_bytes());
    }
    // The machine's processors are not dom0's: what is wired to any pin of one is told of all.
    let has_long_ids = (apic_ids.iter().enumerate()).any(|(uid, &id)| short_ids(uid, id).is_none());
    let pins = [0, 1].map(|lint| host.local_nmis.iter().find(|nmi| nmi.lint == lint));
    for nmi in pins.into_iter().flatten() {
        let [low, high] = nmi.flags.to_le_bytes();
        body.extend_from_slice(&[4, 6, 0xFF, low, high, nmi.lint]);
        if has_long_ids {
            body.extend_from_slice(&[10, 12, low, high, 0xFF, 0xFF, 0xFF, 0xFF, nmi.lint, 0, 0, 0]);
        }
    }
    table(b"APIC", 3, &body)
}

/// UID and APIC ID as a local APIC entry has them; `None` if they need an x2APIC entry (0xFF means "all" or "none").
fn short_ids(uid: usize, apic_id: u32) -> Option<(u8, u8)> {
    let short = |value| u8::try_from(value).ok().filter(|&value| value != 0xFF);
    Some((short(uid)?, short(apic_id as usize)?))
}

/// A whole table with header and checksum.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(signature);
    bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&[revision, 0]);
    bytes.extend_from_slice(b"OXEN  DOM0    ");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(b"OXEN");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes[9] = sum(&bytes).wrapping_neg();
    bytes
}
