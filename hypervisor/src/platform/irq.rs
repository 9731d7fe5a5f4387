//! Device interrupts: from the machine's I/O APIC pins, through dom0's emulated ones, to its local APICs.
//!
//! A level-triggered pin is masked when it fires and opened again when dom0 ends the service of its vector, so that a
//! device that dom0 neglects can never keep a CPU busy.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use oxen_core::apic::{IoApic, PinChange, Trigger};
use spin::{Mutex, Once};

use super::{console_input, pci};
use crate::cpu;
use crate::domain::{self, Domain};
use crate::interrupt::io_apic::{self, Route};
use crate::interrupt::vectors::{self, Source};
use oxen_core::id::CpuId;

/// Global system interrupts that are kept track of.
const GSIS: usize = 256;

/// Vector of each global system interrupt; 0 for none yet.
static VECTORS: [AtomicU8; GSIS] = [const { AtomicU8::new(0) }; GSIS];
/// The console's interrupt, which dom0 never gets.
static CONSOLE: AtomicU32 = AtomicU32::new(u32::MAX);
/// dom0's I/O APICs.
static EMULATED: Once<Vec<Mutex<IoApic>>> = Once::new();

/// Makes an emulated I/O APIC for each of the machine's.
pub fn init() {
    EMULATED.call_once(|| {
        io_apic::all()
            .map(|(entry, pins)| Mutex::new(IoApic::new(entry.id, entry.gsi_base, pins)))
            .collect()
    });
}

/// Gives the console its interrupt.
pub fn claim_console(gsi: u32, trigger: Trigger, active_low: bool) {
    CONSOLE.store(gsi, Ordering::Relaxed);
    open(gsi, trigger, active_low);
}

/// A device's interrupt was taken by this CPU.
pub fn raised(source: Source) {
    let gsi = match source {
        Source::Gsi(gsi) => gsi,
        Source::Message(slot) => return pci::raised(slot),
    };
    if gsi == CONSOLE.load(Ordering::Relaxed) {
        console_input::poll();
        return;
    }
    let Some(dom0) = domain::dom0() else { return };
    let Some((apic, pin)) = find(gsi) else { return };
    let mut apic = apic.lock();
    if apic
        .pin(pin)
        .is_some_and(|state| state.trigger == Trigger::Level)
    {
        io_apic::mask(gsi);
    }
    if let Some(message) = apic.raise(pin) {
        drop(apic);
        dom0.deliver(&message);
    }
}

/// dom0 ended the service of a level-triggered vector.
pub fn guest_eoi(domain: &Domain, vector: u8) {
    if !domain.privileged {
        return;
    }
    for apic in EMULATED.get().into_iter().flatten() {
        let mut apic = apic.lock();
        let base = apic.gsi_base();
        for change in apic.end_of_interrupt(vector) {
            apply(base, &change);
        }
    }
}

/// dom0 reads an I/O APIC register.
pub fn read(apic: usize, offset: u32) -> u32 {
    EMULATED
        .get()
        .and_then(|apics| apics.get(apic))
        .map_or(u32::MAX, |apic| apic.lock().read(offset))
}

/// dom0 writes an I/O APIC register.
pub fn write(apic: usize, offset: u32, value: u32) {
    if let Some(apic) = EMULATED.get().and_then(|apics| apics.get(apic)) {
        let mut apic = apic.lock();
        let base = apic.gsi_base();
        if let Some(change) = apic.write(offset, value) {
            apply(base, &change);
        }
    }
}

fn find(gsi: u32) -> Option<(&'static Mutex<IoApic>, u8)> {
    EMULATED
        .get()?
        .iter()
        .find_map(|apic| apic.lock().pin_of(gsi).map(|pin| (apic, pin)))
}

/// Programs the machine's pin as dom0's entry asks.
fn apply(gsi_base: u32, change: &PinChange) {
    let gsi = gsi_base + u32::from(change.pin);
    if gsi == CONSOLE.load(Ordering::Relaxed) {
        return;
    }
    if change.enabled {
        open(gsi, change.trigger, change.active_low);
    } else {
        io_apic::mask(gsi);
    }
}

fn open(gsi: u32, trigger: Trigger, active_low: bool) {
    let Some(slot) = VECTORS.get(gsi as usize) else {
        log::warn!("interrupt {gsi} is beyond what is supported and stays masked");
        return;
    };
    let mut vector = slot.load(Ordering::Relaxed);
    if vector == 0 {
        let Some(fresh) = vectors::allocate(Source::Gsi(gsi)) else {
            log::warn!("no interrupt vector left: interrupt {gsi} stays masked");
            return;
        };
        slot.store(fresh, Ordering::Relaxed);
        vector = fresh;
    }
    let apic_id = cpu::percpu::by_id(CpuId(0)).map_or(0, |cpu| cpu.apic_id());
    io_apic::open(
        gsi,
        &Route {
            vector,
            apic_id,
            trigger,
            active_low,
        },
    );
}
