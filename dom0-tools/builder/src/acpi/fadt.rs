//! The FADT of a guest without any ACPI hardware.

use super::HEADER_SIZE;

/// Major revision of the table.
pub const REVISION: u8 = 6;
const SIZE: usize = 276;
const DSDT: usize = 40;
const BOOT_FLAGS: usize = 109;
const FLAGS: usize = 112;
const X_DSDT: usize = 140;

/// No VGA, no CMOS clock; a clear bit 1 says that there is no 8042 either.
const BOOT_NO_VGA: u16 = 1 << 2;
const BOOT_NO_CMOS_RTC: u16 = 1 << 5;
/// WBINVD works; power and sleep button are not fixed hardware; no ACPI registers at all.
const WBINVD: u32 = 1 << 0;
const NO_POWER_BUTTON: u32 = 1 << 4;
const NO_SLEEP_BUTTON: u32 = 1 << 5;
const HW_REDUCED: u32 = 1 << 20;

/// What follows the table's header.
pub fn body(dsdt: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE - HEADER_SIZE];
    let mut put = |offset: usize, value: &[u8]| {
        let at = offset - HEADER_SIZE;
        bytes[at..at + value.len()].copy_from_slice(value);
    };
    // Tables are below 4 GiB, so that both pointers can be there.
    put(DSDT, &(dsdt as u32).to_le_bytes());
    put(BOOT_FLAGS, &(BOOT_NO_VGA | BOOT_NO_CMOS_RTC).to_le_bytes());
    let flags = WBINVD | NO_POWER_BUTTON | NO_SLEEP_BUTTON | HW_REDUCED;
    put(FLAGS, &flags.to_le_bytes());
    put(X_DSDT, &dsdt.to_le_bytes());
    bytes
}
