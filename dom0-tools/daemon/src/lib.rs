//! What the daemons of dom0 have in common: how they start ([`run`]) and log ([`logging`]), and what they give up when they have opened what they
//! need ([`confine`], and [`confine::seal`] for what serves a single guest).
#![forbid(unsafe_code)]

pub mod confine;
pub mod logging;
mod start;

pub use start::{LOG_HELP, run};
