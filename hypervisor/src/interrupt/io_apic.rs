//! The machine's I/O APICs.

use alloc::vec::Vec;

use oxen_core::acpi::IoApicEntry;
use oxen_core::address::HostPhys;
use oxen_core::apic::Trigger;
use spin::{Mutex, Once};

use crate::memory::paging::{self, Permission};

/// One I/O APIC's registers.
struct IoApic {
    entry: IoApicEntry,
    registers: Mutex<Registers>,
    pins: u8,
}

struct Registers(*mut u8);

// SAFETY: the pointer is to device registers that stay mapped, and the lock makes each user the only one.
unsafe impl Send for Registers {}

const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;
const VERSION: u8 = 1;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

static IO_APICS: Once<Vec<IoApic>> = Once::new();

/// Maps the machine's I/O APICs and masks all their pins.
pub fn init(entries: &[IoApicEntry]) {
    IO_APICS.call_once(|| {
        let apics: Vec<_> = entries
            .iter()
            .map(|&entry| {
                let mut registers =
                    Registers(paging::map_device(entry.address, 4096, Permission::Device));
                let pins = (registers.read(VERSION) >> 16) as u8 + 1;
                (0..pins).for_each(|pin| registers.write(low(pin), MASKED));
                IoApic {
                    entry,
                    registers: Mutex::new(registers),
                    pins,
                }
            })
            .collect();
        apics
    });
}

/// What there is: entry and number of pins of each.
pub fn all() -> impl Iterator<Item = (IoApicEntry, u8)> {
    IO_APICS
        .get()
        .into_iter()
        .flatten()
        .map(|apic| (apic.entry, apic.pins))
}

/// Whether a page belongs to an I/O APIC.
pub fn owns(address: HostPhys) -> bool {
    all().any(|(entry, _)| entry.address.frame() == address.frame())
}

/// How a pin is programmed.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Vector on the destination CPU.
    pub vector: u8,
    /// The destination's local APIC ID.
    pub apic_id: u32,
    /// Trigger mode.
    pub trigger: Trigger,
    /// Polarity.
    pub active_low: bool,
}

/// Opens a pin.
pub fn open(gsi: u32, route: &Route) {
    with_pin(gsi, |registers, pin| {
        let mut word = u32::from(route.vector);
        if route.trigger == Trigger::Level {
            word |= LEVEL;
        }
        if route.active_low {
            word |= ACTIVE_LOW;
        }
        registers.write(low(pin) + 1, route.apic_id << 24);
        registers.write(low(pin), word);
    });
}

/// Closes a pin.
pub fn mask(gsi: u32) {
    with_pin(gsi, |registers, pin| {
        let word = registers.read(low(pin));
        registers.write(low(pin), word | MASKED);
    });
}

fn with_pin(gsi: u32, operation: impl FnOnce(&mut Registers, u8)) {
    let found = IO_APICS.get().into_iter().flatten().find_map(|apic| {
        let pin = gsi.checked_sub(apic.entry.gsi_base)?;
        (pin < u32::from(apic.pins)).then_some((apic, pin as u8))
    });
    if let Some((apic, pin)) = found {
        operation(&mut apic.registers.lock(), pin);
    }
}

/// Index of a pin's low word.
const fn low(pin: u8) -> u8 {
    0x10 + 2 * pin
}

impl Registers {
    fn read(&mut self, index: u8) -> u32 {
        // SAFETY: the two offsets are registers of the page that was mapped for them.
        unsafe {
            self.0
                .add(SELECT)
                .cast::<u32>()
                .write_volatile(index.into());
            self.0.add(WINDOW).cast::<u32>().read_volatile()
        }
    }

    fn write(&mut self, index: u8, value: u32) {
        // SAFETY: as for `read`.
        unsafe {
            self.0
                .add(SELECT)
                .cast::<u32>()
                .write_volatile(index.into());
            self.0.add(WINDOW).cast::<u32>().write_volatile(value);
        }
    }
}
