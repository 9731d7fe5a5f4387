//! ACPI tables of a guest: hardware-reduced, with nothing but CPUs. Root pointer, XSDT, FADT, MADT and an empty DSDT.

mod fadt;

/// Highest number of vCPUs that local APIC entries can name; 0xFF means "all of them".
pub const MAX_VCPUS: u32 = 255;

const HEADER_SIZE: usize = 36;
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;
const RSDP_SIZE: usize = 36;
/// Bytes of the root pointer that its first checksum is over.
const RSDP_V1_SIZE: usize = 20;
const ALIGNMENT: usize = 64;
const OEM: &[u8; 6] = b"OXEN  ";
const OEM_TABLE: &[u8; 8] = b"PVHGUEST";
const LOCAL_APIC_ADDRESS: u32 = 0xFEE0_0000;
const ENABLED: u32 = 1;

/// Tables for a block at guest-physical `base`, the root pointer first. vCPU n has processor UID n, which is how Linux finds
/// its vCPU number, and APIC ID n.
pub fn build(base: u64, vcpus: u32) -> Vec<u8> {
    let mut block = vec![0; RSDP_SIZE];
    let dsdt = append(&mut block, base, table(b"DSDT", 2, &[]));
    let fadt = append(
        &mut block,
        base,
        table(b"FACP", fadt::REVISION, &fadt::body(dsdt)),
    );
    let madt = append(&mut block, base, table(b"APIC", 4, &madt_body(vcpus)));
    let pointers: Vec<u8> = [fadt, madt]
        .iter()
        .flat_map(|at| at.to_le_bytes())
        .collect();
    let xsdt = append(&mut block, base, table(b"XSDT", 1, &pointers));
    block[..RSDP_SIZE].copy_from_slice(&root_pointer(xsdt));
    block
}

/// Appends a table and gives its guest-physical address.
fn append(block: &mut Vec<u8>, base: u64, table: Vec<u8>) -> u64 {
    block.resize(block.len().next_multiple_of(ALIGNMENT), 0);
    let address = base + block.len() as u64;
    block.extend(table);
    address
}

fn root_pointer(xsdt: u64) -> [u8; RSDP_SIZE] {
    let mut bytes = [0; RSDP_SIZE];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[9..15].copy_from_slice(OEM);
    bytes[15] = 2;
    bytes[20..24].copy_from_slice(&(RSDP_SIZE as u32).to_le_bytes());
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    bytes[8] = checksum(&bytes[..RSDP_V1_SIZE]);
    bytes[32] = checksum(&bytes);
    bytes
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_SIZE + body.len());
    bytes.extend(signature);
    bytes.extend(((HEADER_SIZE + body.len()) as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(OEM);
    bytes.extend(OEM_TABLE);
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(b"OXEN");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(body);
    debug_assert_eq!(bytes[LENGTH], (HEADER_SIZE + body.len()).to_le_bytes()[0]);
    bytes[CHECKSUM] = checksum(&bytes);
    bytes
}

/// Local APIC address, flags (no 8259s), and one enabled local APIC for each vCPU. All are enabled: which of them are to be
/// online, guests learn from xenstore.
fn madt_body(vcpus: u32) -> Vec<u8> {
    let mut body = LOCAL_APIC_ADDRESS.to_le_bytes().to_vec();
    body.extend([0; 4]);
    for vcpu in 0..vcpus.min(MAX_VCPUS) {
        let id = vcpu as u8;
        body.extend([0, 8, id, id]);
        body.extend(ENABLED.to_le_bytes());
    }
    body
}

/// What makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte))
}

#[cfg(test)]
mod tests;
