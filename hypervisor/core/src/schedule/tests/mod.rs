//! The scheduler under a simulated machine.

mod caps;
mod fairness;
mod latency;
mod naps;
mod operations;
mod properties;
mod simulator;
