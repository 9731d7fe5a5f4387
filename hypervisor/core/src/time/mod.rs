//! Time as guests see it: the scale of their clock, its publication, the run states of their vCPUs, and dates.

mod date;
mod publish;
mod runstate;
mod scale;
mod timers;

pub use date::unix_seconds;
pub use publish::{VcpuTime, publish, publish_wallclock};
pub use runstate::{Runstate, RunstateKind};
pub use scale::{Scale, ticks_at_rate};
pub use timers::Timers;

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;
