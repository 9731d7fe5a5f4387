//! The CMOS clock, read once at boot for the wall clock.

use oxen_core::time::unix_seconds as to_unix;
use x86_64::instructions::port::Port;

const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;

/// Seconds since 1970 by the CMOS clock, taken as UTC.
pub fn unix_seconds() -> u64 {
    let mut last = read_all();
    // A reading is good when two in a row agree.
    for _ in 0..10 {
        let again = read_all();
        if again == last {
            break;
        }
        last = again;
    }
    let [second, minute, hour, day, month, year] = last;
    to_unix(
        2000 + u64::from(year),
        month.into(),
        day.into(),
        hour.into(),
        minute.into(),
        second.into(),
    )
}

fn read_all() -> [u8; 6] {
    const PATIENCE: u32 = 100_000;
    for _ in 0..PATIENCE {
        if read(STATUS_A) & UPDATE_IN_PROGRESS == 0 {
            break;
        }
    }
    let format = read(STATUS_B);
    let mut fields = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09].map(read);
    let afternoon = fields[2] & 0x80 != 0;
    fields[2] &= 0x7F;
    if format & BINARY == 0 {
        fields = fields.map(|value| (value >> 4) * 10 + (value & 0xF));
    }
    if format & HOURS_24 == 0 {
        fields[2] = fields[2] % 12 + if afternoon { 12 } else { 0 };
    }
    [
        fields[0],
        fields[1],
        fields[2],
        fields[3].max(1),
        fields[4].clamp(1, 12),
        fields[5],
    ]
}

fn read(index: u8) -> u8 {
    // SAFETY: the CMOS index and data ports; nobody else uses them before the control domain runs.
    unsafe {
        Port::<u8>::new(0x70).write(index);
        Port::<u8>::new(0x71).read()
    }
}
