//! The emulated local APIC (SDM vol. 3, chapter 11), in xAPIC and x2APIC mode.
//!
//! Its registers live in a page in the hardware's own layout, so that a CPU with APIC virtualization can work on the same
//! page. There is no timer tick here: guests are not shown TSC-deadline mode, and Linux on this ABI uses events.

use crate::sync::atomic::{AtomicU32, Ordering};

use super::{Delivery, Destination, Effect, GeneralProtection, Ipi, Trigger};
use crate::context;
use crate::guest_page::GuestPage;

/// Register offsets in the page.
#[allow(missing_docs)]
pub mod register {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const PPR: u32 = 0xA0;
    pub const EOI: u32 = 0xB0;
    pub const LDR: u32 = 0xD0;
    pub const DFR: u32 = 0xE0;
    pub const SVR: u32 = 0xF0;
    pub const ISR: u32 = 0x100;
    pub const TMR: u32 = 0x180;
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const LVT_CMCI: u32 = 0x2F0;
    pub const ICR_LOW: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_THERMAL: u32 = 0x330;
    pub const LVT_PERFORMANCE: u32 = 0x340;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3E0;
    pub const SELF_IPI: u32 = 0x3F0;
}

/// Version 0x14 with six local vectors.
const VERSION_VALUE: u32 = 0x0005_0014;
/// Where the page is, for every guest.
pub const BASE_ADDRESS: u64 = 0xFEE0_0000;
const BASE_BSP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
const SVR_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LOWEST_VECTOR: u8 = 16;

/// Registers that can be read, besides the three 256-bit arrays.
const READABLE: [u32; 20] = [
    register::ID,
    register::VERSION,
    register::TPR,
    register::PPR,
    register::LDR,
    register::DFR,
    register::SVR,
    register::ESR,
    register::ICR_LOW,
    register::ICR_HIGH,
    register::LVT_TIMER,
    register::LVT_THERMAL,
    register::LVT_PERFORMANCE,
    register::LVT_LINT0,
    register::LVT_LINT1,
    register::LVT_ERROR,
    register::TIMER_INITIAL,
    register::TIMER_CURRENT,
    register::TIMER_DIVIDE,
    register::LVT_CMCI,
];

/// A vCPU's local APIC. Touched only by the CPU that runs the vCPU.
pub struct LocalApic {
    page: GuestPage,
    id: u32,
    base: u64,
    /// Whether IRR may hold anything: keeps the common case to one test.
    maybe_requested: bool,
    /// Whether the trigger mode of a vector has changed since [`LocalApic::changed_modes`] was asked.
    modes_changed: bool,
}

/// How a guest reaches its local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// Through its page.
    Page,
    /// Through the x2APIC's MSRs.
    Msrs,
}

impl LocalApic {
    /// A local APIC after power-up, on a page of its own.
    pub fn new(page: GuestPage, id: u32, bootstrap: bool) -> Self {
        let role = if bootstrap { BASE_BSP } else { 0 };
        let mut this = Self {
            page,
            id,
            base: BASE_ADDRESS | BASE_ENABLE | role,
            maybe_requested: false,
            modes_changed: false,
        };
        this.reset();
        this
    }

    /// Its ID.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// State after INIT; the mode and the ID stay (SDM vol. 3, 11.4.7.3).
    pub fn reset(&mut self) {
        self.page.zero();
        self.maybe_requested = false;
        self.modes_changed = true;
        self.set(register::VERSION, VERSION_VALUE);
        self.set(register::DFR, u32::MAX);
        self.set(register::SVR, 0xFF);
        for offset in (register::LVT_TIMER..=register::LVT_ERROR).step_by(0x10) {
            self.set(offset, LVT_MASKED);
        }
        self.set_identity();
    }

    /// The registers as they lie in the page.
    pub fn registers(&self) -> [u8; context::lapic::REGISTERS] {
        let mut bytes = [0; context::lapic::REGISTERS];
        self.page.read(0, &mut bytes);
        bytes
    }

    /// Takes over the mode of a saved APIC base MSR, and saved registers, both checked. The ID stays.
    pub fn load(&mut self, base: Option<u64>, registers: Option<&[u8; context::lapic::REGISTERS]>) {
        if let Some(base) = base {
            self.base = base & !BASE_BSP | self.base & BASE_BSP;
        }
        if let Some(registers) = registers {
            self.page.write(0, registers);
            self.set(register::VERSION, VERSION_VALUE);
            self.set(register::ESR, 0);
        }
        let logical = self.get(register::LDR);
        self.set_identity();
        if !self.is_x2apic() {
            self.set(register::LDR, logical & 0xFF00_0000);
            self.set(register::DFR, self.get(register::DFR) | 0x0FFF_FFFF);
        }
        self.maybe_requested = true;
        self.modes_changed = true;
    }

    /// The APIC base MSR.
    pub const fn apic_base(&self) -> u64 {
        self.base
    }

    /// Writes the APIC base MSR: the mode may change, the address may not.
    ///
    /// # Errors
    /// An illegal change of mode (SDM vol. 3, figure 11-27), or reserved bits.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let mode = value & (BASE_ENABLE | BASE_X2APIC);
        let was = self.base & (BASE_ENABLE | BASE_X2APIC);
        let legal = match (was, mode) {
            (_, BASE_X2APIC) => false,
            (0, mode) => mode != BASE_ENABLE | BASE_X2APIC,
            (was, mode) => mode == 0 || was & BASE_X2APIC == 0 || mode == was,
        };
        if !legal || value & !(BASE_ENABLE | BASE_X2APIC | BASE_BSP) != BASE_ADDRESS {
            return Err(GeneralProtection);
        }
        self.base = value & !BASE_BSP | self.base & BASE_BSP;
        if mode != was {
            self.set_identity();
        }
        Ok(())
    }

    /// Whether x2APIC mode is on.
    pub const fn is_x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    /// Takes a fixed interrupt in. A local APIC that software has turned off takes none.
    pub fn accept(&mut self, vector: u8, trigger: Trigger) {
        if self.get(register::SVR) & SVR_ENABLE == 0
            || self.base & BASE_ENABLE == 0
            || vector < LOWEST_VECTOR
        {
            return;
        }
        let (offset, bit) = position(vector);
        let modes = self.at(register::TMR + offset);
        let before = match trigger {
            Trigger::Level => modes.fetch_or(bit, Ordering::Relaxed),
            Trigger::Edge => modes.fetch_and(!bit, Ordering::Relaxed),
        };
        self.modes_changed |= (before & bit != 0) != (trigger == Trigger::Level);
        self.at(register::IRR + offset)
            .fetch_or(bit, Ordering::Relaxed);
        self.maybe_requested = true;
    }

    /// How the guest reaches it.
    pub const fn mode(&self) -> Mode {
        match (self.base & BASE_ENABLE != 0, self.is_x2apic()) {
            (false, _) => Mode::Off,
            (true, false) => Mode::Page,
            (true, true) => Mode::Msrs,
        }
    }

    /// The vectors that are level-triggered, 32 to a word, if that has changed since the last time.
    pub fn changed_modes(&mut self) -> Option<[u32; 8]> {
        core::mem::take(&mut self.modes_changed)
            .then(|| core::array::from_fn(|word| self.get(register::TMR + word as u32 * 0x10)))
    }

    /// A CPU that delivers interrupts by itself may have put some into the page.
    pub const fn look_again(&mut self) {
        self.maybe_requested = true;
    }

    /// A CPU that virtualizes the registers has stored what the guest wrote at `offset` of the page.
    pub fn written(&mut self, offset: u32) -> Effect {
        match offset {
            // Some CPUs let it be written.
            register::ID => {
                let own = if self.is_x2apic() {
                    self.id
                } else {
                    self.id << 24
                };
                self.set(register::ID, own);
                Effect::None
            }
            _ => self.write_mmio(offset, self.get(offset)),
        }
    }

    /// The highest vector that waits, whatever holds it back.
    pub fn highest_requested(&mut self) -> Option<u8> {
        if !self.maybe_requested {
            return None;
        }
        let found = self.highest(register::IRR);
        self.maybe_requested = found.is_some();
        found
    }

    /// The vector to deliver now: the highest that waits, if its class is above the processor priority.
    pub fn deliverable(&mut self) -> Option<u8> {
        let vector = self.highest_requested()?;
        (vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// The vector is being delivered: it moves from requested to in service.
    pub fn begin_service(&mut self, vector: u8) {
        let (offset, bit) = position(vector);
        self.at(register::IRR + offset)
            .fetch_and(!bit, Ordering::Relaxed);
        self.at(register::ISR + offset)
            .fetch_or(bit, Ordering::Relaxed);
    }

    /// Ends the service of the highest vector in service.
    pub fn eoi(&mut self) -> Effect {
        let Some(vector) = self.highest(register::ISR) else {
            return Effect::None;
        };
        let (offset, bit) = position(vector);
        self.at(register::ISR + offset)
            .fetch_and(!bit, Ordering::Relaxed);
        let level = self.at(register::TMR + offset).load(Ordering::Relaxed) & bit != 0;
        Effect::Eoi { vector, level }
    }

    /// Task priority.
    pub fn tpr(&self) -> u8 {
        self.get(register::TPR) as u8
    }

    /// Sets the task priority.
    pub fn set_tpr(&mut self, value: u8) {
        self.set(register::TPR, value.into());
    }

    /// Processor priority: the higher of the task's and of the vector in service (SDM vol. 3, 11.8.3.1).
    pub fn ppr(&self) -> u8 {
        let task = self.tpr();
        let service = self.highest(register::ISR).unwrap_or(0) & 0xF0;
        if task & 0xF0 >= service {
            task
        } else {
            service
        }
    }

    /// Whether a message to `destination` (physical or logical) is for this local APIC.
    pub fn matches(&self, destination: Destination) -> bool {
        Identity {
            id: self.id,
            ldr: self.get(register::LDR),
            dfr: self.get(register::DFR),
            x2apic: self.is_x2apic(),
        }
        .matches(destination)
    }

    /// What others need to address this local APIC.
    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id,
            ldr: self.get(register::LDR),
            dfr: self.get(register::DFR),
            x2apic: self.is_x2apic(),
        }
    }

    /// Reads a register through the page (xAPIC mode); what does not exist reads 0.
    pub fn read_mmio(&mut self, offset: u32) -> u32 {
        match offset {
            register::PPR => self.ppr().into(),
            register::ISR..register::ESR => self.get(offset),
            _ if READABLE.contains(&offset) => self.get(offset),
            _ => 0,
        }
    }

    /// Writes a register through the page (xAPIC mode); what does not exist or is read-only is dropped.
    pub fn write_mmio(&mut self, offset: u32, value: u32) -> Effect {
        match offset {
            register::LDR => self.set(register::LDR, value & 0xFF00_0000),
            register::DFR => self.set(register::DFR, value | 0x0FFF_FFFF),
            register::ICR_HIGH => self.set(register::ICR_HIGH, value & 0xFF00_0000),
            register::ICR_LOW => {
                self.set(register::ICR_LOW, value & !(1 << 12));
                return command(value, self.get(register::ICR_HIGH) >> 24, false);
            }
            register::SELF_IPI => {}
            _ => return self.write_common(offset, value),
        }
        Effect::None
    }

    /// Reads an x2APIC MSR, 0x800 to 0x8FF.
    ///
    /// # Errors
    /// Not in x2APIC mode, or no such readable register.
    pub fn read_msr(&mut self, index: u32) -> Result<u64, GeneralProtection> {
        let offset = (index & 0xFF) << 4;
        if !self.is_x2apic() || matches!(offset, register::DFR | register::ICR_HIGH) {
            return Err(GeneralProtection);
        }
        match offset {
            register::ICR_LOW => {
                Ok(u64::from(self.get(register::ICR_HIGH)) << 32 | u64::from(self.get(offset)))
            }
            register::ISR..register::ESR => Ok(self.get(offset).into()),
            _ if READABLE.contains(&offset) => Ok(self.read_mmio(offset).into()),
            _ => Err(GeneralProtection),
        }
    }

    /// Writes an x2APIC MSR.
    ///
    /// # Errors
    /// Not in x2APIC mode, no such writable register, or reserved bits set.
    pub fn write_msr(&mut self, index: u32, value: u64) -> Result<Effect, GeneralProtection> {
        if !self.is_x2apic() {
            return Err(GeneralProtection);
        }
        let offset = (index & 0xFF) << 4;
        let low = value as u32;
        match offset {
            register::ICR_LOW => {
                self.set(register::ICR_HIGH, (value >> 32) as u32);
                self.set(register::ICR_LOW, low);
                Ok(command(low, (value >> 32) as u32, true))
            }
            register::SELF_IPI if value <= 0xFF => {
                let ipi = Ipi {
                    delivery: Delivery::Fixed,
                    vector: low as u8,
                    destination: Destination::Own,
                };
                Ok(Effect::Ipi(ipi))
            }
            register::EOI | register::ESR if value != 0 => Err(GeneralProtection),
            register::TPR
            | register::EOI
            | register::SVR
            | register::ESR
            | register::LVT_TIMER..=register::TIMER_INITIAL
            | register::TIMER_DIVIDE
                if value >> 32 == 0 =>
            {
                Ok(self.write_common(offset, low))
            }
            _ => Err(GeneralProtection),
        }
    }

    fn write_common(&mut self, offset: u32, value: u32) -> Effect {
        match offset {
            register::TPR => self.set(offset, value & 0xFF),
            register::EOI => return self.eoi(),
            register::SVR => {
                self.set(offset, value & 0x1FF);
                if value & SVR_ENABLE == 0 {
                    for local in (register::LVT_TIMER..=register::LVT_ERROR).step_by(0x10) {
                        self.set(local, self.get(local) | LVT_MASKED);
                    }
                }
            }
            register::ESR => self.set(offset, 0),
            register::LVT_TIMER..=register::LVT_ERROR => {
                let forced = if self.get(register::SVR) & SVR_ENABLE == 0 {
                    LVT_MASKED
                } else {
                    0
                };
                self.set(offset, value & 0x0003_F7FF | forced);
            }
            register::TIMER_INITIAL | register::TIMER_DIVIDE => self.set(offset, value),
            _ => {}
        }
        Effect::None
    }

    fn set_identity(&mut self) {
        if self.is_x2apic() {
            self.set(register::ID, self.id);
            // SDM vol. 3, 11.12.10.2: cluster in the upper half, one bit in the lower.
            self.set(register::LDR, (self.id >> 4) << 16 | 1 << (self.id & 0xF));
        } else {
            self.set(register::ID, self.id << 24);
            self.set(register::LDR, 0);
        }
    }

    fn highest(&self, array: u32) -> Option<u8> {
        (0..8u32).rev().find_map(|word| {
            let bits = self.get(array + word * 0x10);
            (bits != 0).then(|| (word * 32 + 31 - bits.leading_zeros()) as u8)
        })
    }

    fn at(&self, offset: u32) -> &AtomicU32 {
        self.page.u32(offset as usize)
    }

    fn get(&self, offset: u32) -> u32 {
        self.at(offset).load(Ordering::Relaxed)
    }

    fn set(&self, offset: u32, value: u32) {
        self.at(offset).store(value, Ordering::Relaxed);
    }
}

/// How a local APIC can be addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Physical ID.
    pub id: u32,
    /// Logical destination register.
    pub ldr: u32,
    /// Destination format register.
    pub dfr: u32,
    /// Whether x2APIC rules hold.
    pub x2apic: bool,
}

impl Identity {
    /// Whether a message to `destination` is for it; shorthands are the sender's matter and match all.
    pub const fn matches(&self, destination: Destination) -> bool {
        match destination {
            Destination::Own | Destination::All | Destination::Others => true,
            Destination::Physical(id) => self.physical(id),
            Destination::Logical(id) => self.logical(id),
        }
    }

    const fn physical(&self, id: u32) -> bool {
        id == self.id || id == 0xFF || (self.x2apic && id == u32::MAX)
    }

    const fn logical(&self, id: u32) -> bool {
        const CLUSTER_MODEL: u32 = 0;
        if self.x2apic {
            // An I/O APIC's eight bits address cluster 0.
            return id == u32::MAX || (id >> 16 == self.ldr >> 16 && id & self.ldr & 0xFFFF != 0);
        }
        let own = self.ldr >> 24;
        if self.dfr >> 28 == CLUSTER_MODEL {
            (id >> 4 == 0xF || id >> 4 == own >> 4) && id & own & 0xF != 0
        } else {
            id & own & 0xFF != 0
        }
    }
}

/// Decodes the interrupt command register (SDM vol. 3, 11.6.1).
const fn command(low: u32, destination: u32, x2apic: bool) -> Effect {
    const LOGICAL: u32 = 1 << 11;
    const ASSERT: u32 = 1 << 14;
    const LEVEL: u32 = 1 << 15;
    let Some(delivery) = Delivery::from_bits((low >> 8) as u64) else {
        return Effect::None;
    };
    // INIT level de-assert: nothing on any CPU since the Pentium 4.
    if matches!(delivery, Delivery::Init) && low & LEVEL != 0 && low & ASSERT == 0 {
        return Effect::None;
    }
    let destination = match low >> 18 & 3 {
        1 => Destination::Own,
        2 => Destination::All,
        3 => Destination::Others,
        _ if low & LOGICAL != 0 => Destination::Logical(destination),
        _ if !x2apic && destination == 0xFF => Destination::All,
        _ => Destination::Physical(destination),
    };
    Effect::Ipi(Ipi {
        delivery,
        vector: low as u8,
        destination,
    })
}

/// Offset of the word in a 256-bit array, and the bit in it.
const fn position(vector: u8) -> (u32, u32) {
    ((vector as u32 / 32) * 0x10, 1 << (vector % 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::PostedInterrupts;
    use crate::guest_page::testing::leaked_page;

    fn enabled() -> LocalApic {
        let mut apic = LocalApic::new(leaked_page(), 3, false);
        assert_eq!(apic.write_mmio(register::SVR, 0x1FF), Effect::None);
        apic
    }

    #[test]
    fn the_highest_vector_is_delivered_first_and_holds_back_its_class() {
        let mut apic = enabled();
        apic.accept(0x31, Trigger::Edge);
        apic.accept(0x52, Trigger::Level);
        assert_eq!(apic.deliverable(), Some(0x52));
        apic.begin_service(0x52);
        apic.accept(0x51, Trigger::Edge);
        assert_eq!(apic.deliverable(), None);
        assert_eq!(apic.highest_requested(), Some(0x51));
        assert_eq!(
            apic.write_mmio(register::EOI, 0),
            Effect::Eoi {
                vector: 0x52,
                level: true
            }
        );
        assert_eq!(apic.deliverable(), Some(0x51));
        assert_eq!(apic.eoi(), Effect::None);
    }

    #[test]
    fn the_task_priority_holds_vectors_back() {
        let mut apic = enabled();
        apic.accept(0x41, Trigger::Edge);
        apic.set_tpr(0x40);
        assert_eq!(apic.deliverable(), None);
        apic.set_tpr(0x3F);
        assert_eq!(apic.deliverable(), Some(0x41));
    }

    #[test]
    fn a_disabled_apic_takes_nothing() {
        let mut apic = LocalApic::new(leaked_page(), 0, true);
        apic.accept(0x41, Trigger::Edge);
        assert_eq!(apic.highest_requested(), None);
    }

    #[test]
    fn level_triggered_vectors_are_told_when_they_change() {
        let mut apic = enabled();
        apic.changed_modes();
        apic.accept(0x31, Trigger::Edge);
        assert_eq!(apic.changed_modes(), None);
        apic.accept(0x52, Trigger::Level);
        let mut modes = [0; 8];
        modes[2] = 1 << 0x12;
        assert_eq!(apic.changed_modes(), Some(modes));
        apic.accept(0x52, Trigger::Level);
        assert_eq!(apic.changed_modes(), None);
        apic.accept(0x52, Trigger::Edge);
        assert_eq!(apic.changed_modes(), Some([0; 8]));
    }

    #[test]
    fn what_the_cpu_stored_takes_effect() {
        let mut apic = enabled();
        apic.set(register::ID, 0xFF00_0000);
        assert_eq!(apic.written(register::ID), Effect::None);
        assert_eq!(apic.read_mmio(register::ID), 3 << 24);
        apic.set(register::ICR_HIGH, 5 << 24);
        apic.set(register::ICR_LOW, 0x41);
        let ipi = Ipi {
            delivery: Delivery::Fixed,
            vector: 0x41,
            destination: Destination::Physical(5),
        };
        assert_eq!(apic.written(register::ICR_LOW), Effect::Ipi(ipi));
        assert_eq!(apic.mode(), Mode::Page);
    }

    #[test]
    fn saved_state_comes_back_but_for_the_identity() {
        let mut from = enabled();
        from.accept(0x52, Trigger::Level);
        from.accept(0x61, Trigger::Edge);
        from.begin_service(0x61);
        from.set_tpr(0x20);
        from.write_mmio(register::LDR, 0xFF12_3456);
        let (base, registers) = (from.apic_base(), from.registers());
        let mut to = LocalApic::new(leaked_page(), 5, true);
        to.load(Some(base), Some(&registers));
        assert_eq!((to.id(), to.read_mmio(register::ID)), (5, 5 << 24));
        assert_eq!(to.apic_base(), base | BASE_BSP);
        assert_eq!(to.highest_requested(), Some(0x52));
        assert_eq!((to.tpr(), to.ppr()), (0x20, 0x60));
        assert_eq!(to.read_mmio(register::LDR), 0xFF00_0000);
        assert_eq!(to.changed_modes(), Some([0, 0, 1 << 0x12, 0, 0, 0, 0, 0]));
        to.load(Some(base | BASE_X2APIC), None);
        assert_eq!(to.read_msr(0x802), Ok(5));
        assert_eq!(to.read_msr(0x80D), Ok(1 << 5));
    }

    #[test]
    fn modes_change_only_along_the_allowed_paths() {
        let mut apic = enabled();
        let base = BASE_ADDRESS;
        assert_eq!(apic.read_msr(0x802), Err(GeneralProtection));
        assert_eq!(
            apic.set_apic_base(base | BASE_X2APIC),
            Err(GeneralProtection)
        );
        assert_eq!(apic.set_apic_base(base | BASE_ENABLE | BASE_X2APIC), Ok(()));
        assert_eq!(apic.read_msr(0x802), Ok(3));
        assert_eq!(apic.read_msr(0x80D), Ok(1 << 3));
        assert_eq!(
            apic.set_apic_base(base | BASE_ENABLE),
            Err(GeneralProtection)
        );
        assert_eq!(apic.set_apic_base(base), Ok(()));
        assert_eq!(
            apic.set_apic_base(base | BASE_ENABLE | BASE_X2APIC),
            Err(GeneralProtection)
        );
        assert_eq!(
            apic.set_apic_base(0x1000 | BASE_ENABLE),
            Err(GeneralProtection)
        );
    }

    #[test]
    fn commands_are_decoded_in_both_modes() {
        let mut apic = enabled();
        apic.write_mmio(register::ICR_HIGH, 5 << 24);
        let init = Ipi {
            delivery: Delivery::Init,
            vector: 0,
            destination: Destination::Physical(5),
        };
        assert_eq!(
            apic.write_mmio(register::ICR_LOW, 0xC500),
            Effect::Ipi(init)
        );
        assert_eq!(apic.write_mmio(register::ICR_LOW, 0x8500), Effect::None);
        assert_eq!(
            apic.set_apic_base(BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC),
            Ok(())
        );
        let fixed = Ipi {
            delivery: Delivery::Fixed,
            vector: 0x41,
            destination: Destination::Physical(7),
        };
        assert_eq!(
            apic.write_msr(0x830, 7 << 32 | 0x41),
            Ok(Effect::Ipi(fixed))
        );
        let own = Ipi {
            destination: Destination::Own,
            ..fixed
        };
        assert_eq!(apic.write_msr(0x83F, 0x41), Ok(Effect::Ipi(own)));
        assert_eq!(apic.write_msr(0x80B, 1), Err(GeneralProtection));
        assert_eq!(apic.read_msr(0x80B), Err(GeneralProtection));
        assert_eq!(apic.write_msr(0x802, 0), Err(GeneralProtection));
    }

    #[test]
    fn logical_destinations_match_by_model() {
        let flat = Identity {
            id: 1,
            ldr: 2 << 24,
            dfr: u32::MAX,
            x2apic: false,
        };
        assert!(
            flat.matches(Destination::Logical(0b11)) && !flat.matches(Destination::Logical(0b01))
        );
        let cluster = Identity {
            dfr: 0x0FFF_FFFF,
            ldr: 0x21 << 24,
            ..flat
        };
        assert!(
            cluster.matches(Destination::Logical(0x21))
                && !cluster.matches(Destination::Logical(0x31))
        );
        let x2 = Identity {
            x2apic: true,
            ldr: 1 << 16 | 4,
            ..flat
        };
        assert!(
            x2.matches(Destination::Logical(1 << 16 | 6)) && !x2.matches(Destination::Logical(6))
        );
    }

    #[test]
    fn posted_vectors_arrive_once_with_their_trigger() {
        let mut apic = enabled();
        let posted = PostedInterrupts::new();
        assert!(posted.post(0xF0, Trigger::Level));
        assert!(!posted.post(0x40, Trigger::Edge));
        posted.drain_into(&mut apic);
        assert_eq!(apic.deliverable(), Some(0xF0));
        apic.begin_service(0xF0);
        assert_eq!(
            apic.eoi(),
            Effect::Eoi {
                vector: 0xF0,
                level: true
            }
        );
        assert_eq!(apic.deliverable(), Some(0x40));
        apic.begin_service(0x40);
        posted.drain_into(&mut apic);
        assert_eq!(apic.highest_requested(), None);
    }
}
