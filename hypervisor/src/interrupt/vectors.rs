//! Interrupt vectors: which source each belongs to. Vectors are the same on all CPUs.

use core::sync::atomic::{AtomicU32, Ordering};

use super::local_apic;

/// The local APIC timer.
pub const TIMER: u8 = 0xFE;
/// Another CPU asks this one to look up from what it does.
pub const ATTENTION: u8 = 0xFD;
/// The local APIC reports an error of its own.
pub const APIC_ERROR: u8 = 0xFC;
/// Spurious interrupts; its low four bits are ones, as old local APICs want.
pub const SPURIOUS: u8 = 0xFF;

/// Vectors for devices.
const DEVICES: core::ops::Range<u8> = 0x30..0xF0;

/// What a device vector stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A global system interrupt, through an I/O APIC.
    Gsi(u32),
    /// A message-signalled interrupt, by its slot in the interrupt-routing table.
    Message(u32),
}

/// Source of each vector, packed: 0 none; else kind in the top bits.
static SOURCES: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

const KIND_GSI: u32 = 1 << 30;
const KIND_MESSAGE: u32 = 2 << 30;
const NUMBER: u32 = (1 << 30) - 1;

impl Source {
    const fn pack(self) -> u32 {
        match self {
            Self::Gsi(number) => KIND_GSI | number,
            Self::Message(number) => KIND_MESSAGE | number,
        }
    }

    const fn unpack(packed: u32) -> Option<Self> {
        match packed & !NUMBER {
            KIND_GSI => Some(Self::Gsi(packed & NUMBER)),
            KIND_MESSAGE => Some(Self::Message(packed & NUMBER)),
            _ => None,
        }
    }
}

/// Reserves a vector for a device source; `None` when all are taken.
pub fn allocate(source: Source) -> Option<u8> {
    DEVICES.clone().find(|&vector| {
        SOURCES[usize::from(vector)]
            .compare_exchange(0, source.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    })
}

/// Gives a vector back. One that is on its way still is taken and dropped.
pub fn release(vector: u8) {
    SOURCES[usize::from(vector)].store(0, Ordering::Release);
}

/// Handles the vector that this CPU took, and acknowledges it.
pub fn dispatch(vector: u8) {
    match vector {
        // Nothing to do beyond having left guest mode or HLT: the vCPU loop looks at deadlines and attention.
        TIMER | ATTENTION => local_apic::end_of_interrupt(),
        APIC_ERROR => {
            local_apic::report_error();
            local_apic::end_of_interrupt();
        }
        SPURIOUS => {}
        _ => {
            match Source::unpack(SOURCES[usize::from(vector)].load(Ordering::Acquire)) {
                Some(source) => crate::platform::irq::raised(source),
                None => log::debug!("interrupt on vector {vector:#x}, which nothing claims"),
            }
            local_apic::end_of_interrupt();
        }
    }
}
