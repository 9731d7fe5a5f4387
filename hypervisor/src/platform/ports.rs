//! I/O ports: which ones a domain may use directly, and what the others do.

use x86_64::instructions::port::Port;

use super::{pci, power};
use crate::console::serial;
use crate::domain::{Domain, crash};
use crate::stop::Reason;

/// Ports that dom0 must not touch: the interrupt controllers, the timer's gate, the debug console.
const REFUSED: [(u16, u16); 4] = [(0x20, 0x21), (0xA0, 0xA1), (0x61, 0x61), (0xE9, 0xE9)];

/// The PIT, which dom0 does not get either. It reads as one that stands still at zero: all ones look to Linux like a count
/// that is about to fall, and it reads them 100,000 times.
const TIMER: core::ops::RangeInclusive<u16> = 0x40..=0x43;

/// PCI configuration: address and data ports.
const PCI: core::ops::RangeInclusive<u16> = 0xCF8..=0xCFF;
/// The reset control register of PCI chipsets lies among them.
const RESET: u16 = 0xCF9;

/// Where kernels of PCs write to let a bus cycle pass: nothing is there but a display of boot codes, and every domain gets it.
const DELAY: u16 = 0x80;

/// Bytes of the bitmap: two pages of bits, and one of ones for accesses that straddle the end.
pub const BITMAP: usize = 3 * 4096;

/// Fills a domain's bitmap: a set bit makes an access exit.
pub fn fill_bitmap(bitmap: &mut [u8], privileged: bool) {
    bitmap.fill(if privileged { 0 } else { 0xFF });
    bitmap[2 * 4096..].fill(0xFF);
    if !privileged {
        bitmap[usize::from(DELAY) / 8] &= !(1 << (DELAY % 8));
        return;
    }
    let mut refuse = |first: u16, last: u16| {
        for port in first..=last {
            bitmap[usize::from(port) / 8] |= 1 << (port % 8);
        }
    };
    refuse(*PCI.start(), *PCI.end());
    refuse(*TIMER.start(), *TIMER.end());
    REFUSED
        .iter()
        .for_each(|&(first, last)| refuse(first, last));
    if let Some(base) = serial::base() {
        refuse(base, base + 7);
    }
    // Power-off goes through us.
    for port in sleep_ports() {
        refuse(port, port + 1);
    }
}

/// Reads an intercepted port: nothing is there, all bits are ones.
pub fn read(domain: &Domain, port: u16, width: u8) -> u32 {
    if domain.privileged && sleep_ports().any(|sleep| (sleep..sleep + 2).contains(&port)) {
        return read_host(port, width);
    }
    if domain.privileged && PCI.contains(&port) {
        return pci::read_port(port, width);
    }
    if domain.privileged && TIMER.contains(&port) {
        return 0;
    }
    u32::MAX
}

/// Writes an intercepted port.
pub fn write(domain: &Domain, port: u16, width: u8, value: u32) {
    const SLEEP_HIGH_BYTE: u32 = (power::SLEEP_ENABLE >> 8) as u32;
    if !domain.privileged {
        return;
    }
    if PCI.contains(&port) {
        const RESET_NOW: u32 = 1 << 2;
        if port == RESET && width == 1 && value & RESET_NOW != 0 {
            crash::machine_ends(domain, Reason::Reboot);
        }
        pci::write_port(port, width, value);
        return;
    }
    let Some(sleep) = sleep_ports().find(|sleep| (*sleep..sleep + 2).contains(&port)) else {
        return;
    };
    let sleeps = if port == sleep {
        width > 1 && value & u32::from(power::SLEEP_ENABLE) != 0
    } else {
        value & SLEEP_HIGH_BYTE != 0
    };
    if sleeps {
        crash::machine_ends(domain, Reason::PowerOff);
    }
    write_host(port, width, value);
}

fn sleep_ports() -> impl Iterator<Item = u16> {
    let control = power::sleep_control().unwrap_or_default();
    [control.pm1a, control.pm1b]
        .into_iter()
        .filter(|&port| port != 0)
}

fn read_host(port: u16, width: u8) -> u32 {
    // SAFETY: callers pass ports that dom0 owns but for their interception.
    unsafe {
        match width {
            1 => Port::<u8>::new(port).read().into(),
            2 => Port::<u16>::new(port).read().into(),
            _ => Port::<u32>::new(port).read(),
        }
    }
}

fn write_host(port: u16, width: u8, value: u32) {
    // SAFETY: as for `read_host`.
    unsafe {
        match width {
            1 => Port::<u8>::new(port).write(value as u8),
            2 => Port::<u16>::new(port).write(value as u16),
            _ => Port::<u32>::new(port).write(value),
        }
    }
}
