//! Emulated interrupt controllers.

pub mod io;
pub mod local;
pub mod posted;
pub mod start_up;

pub use io::{IoApic, PinChange};
pub use local::LocalApic;
pub use posted::PostedInterrupts;
pub use start_up::StartUp;

/// The access raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// How an interrupt was signalled, which decides how its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Once.
    Edge,
    /// For as long as the device asks: its end goes to the I/O APIC.
    Level,
}

/// How an interrupt is to be delivered (SDM vol. 3, 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The vector, to every destination.
    Fixed,
    /// The vector, to one destination.
    LowestPriority,
    /// Non-maskable.
    Nmi,
    /// Reset to wait for a start-up interrupt.
    Init,
    /// Start at `vector << 12`.
    Startup,
}

impl Delivery {
    /// From the three bits of a command or a redirection entry; reserved and unsupported modes are `None`.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::Startup),
            _ => None,
        }
    }
}

/// Where an interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender alone.
    Own,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
    /// The local APIC with this ID.
    Physical(u32),
    /// Those whose logical ID matches.
    Logical(u32),
}

/// An interrupt that a local APIC's command register sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// How.
    pub delivery: Delivery,
    /// The vector, or the start-up page.
    pub vector: u8,
    /// To whom.
    pub destination: Destination,
}

/// What a write to a local APIC leads to outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An interrupt is to be sent.
    Ipi(Ipi),
    /// The service of a vector has ended.
    Eoi {
        /// The vector.
        vector: u8,
        /// Whether it was level-triggered, so that the I/O APIC must know.
        level: bool,
    },
}
