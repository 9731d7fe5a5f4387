//! Turning the machine off and resetting it.

use spin::Once;
use x86_64::instructions::port::Port;

use crate::stop;

/// The fixed ACPI hardware that power-off needs, from FADT and DSDT.
#[derive(Clone, Copy, Debug, Default)]
pub struct SleepControl {
    /// PM1a_CNT port.
    pub pm1a: u16,
    /// PM1b_CNT port, 0 if there is none.
    pub pm1b: u16,
    /// SLP_TYP values of S5 for the two.
    pub sleep_types: (u8, u8),
}

static SLEEP: Once<SleepControl> = Once::new();

/// SLP_EN in PM1x_CNT (ACPI 4.8.4.2.1).
pub const SLEEP_ENABLE: u16 = 1 << 13;

/// Remembers how to power off.
pub fn set_sleep_control(control: SleepControl) {
    SLEEP.call_once(|| control);
}

/// What [`set_sleep_control`] was told.
pub fn sleep_control() -> Option<SleepControl> {
    SLEEP.get().copied()
}

/// Enters S5; halts where the firmware describes no way.
pub fn off() -> ! {
    if let Some(control) = SLEEP.get() {
        let (a, b) = control.sleep_types;
        for (port, sleep_type) in [(control.pm1a, a), (control.pm1b, b)] {
            if port != 0 {
                let value = u16::from(sleep_type) << 10 | SLEEP_ENABLE;
                // SAFETY: the FADT names this port as PM1 control; the machine goes down here anyway.
                unsafe { Port::<u16>::new(port).write(value) };
            }
        }
    }
    stop::halt()
}

/// Resets the machine: by the reset control register of PCI chipsets, by the keyboard controller, by a triple fault.
pub fn reset() -> ! {
    const RESET_CONTROL: u16 = 0xCF9;
    const KEYBOARD: u16 = 0x64;
    // SAFETY: both ports reset the machine where they do anything; an empty interrupt table then makes the next
    // exception a triple fault, which resets it for certain.
    unsafe {
        Port::<u8>::new(RESET_CONTROL).write(0x02);
        Port::<u8>::new(RESET_CONTROL).write(0x06);
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
        Port::<u8>::new(KEYBOARD).write(0xFE);
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
        let nothing = x86_64::structures::DescriptorTablePointer {
            limit: 0,
            base: x86_64::VirtAddr::zero(),
        };
        x86_64::instructions::tables::lidt(&nothing);
        core::arch::asm!("ud2", options(noreturn));
    }
}
