//! What the integration tests are written with: a boot of Oxen on an emulated machine ([`Setup`]), dom0's shell ([`Shell`]), and bad
//! or known input for both ([`input`]).
//!
//! What is expected of a boot is said by the tests in `matrix`, not here.
#![forbid(unsafe_code)]

pub mod input;
pub mod journal;
mod setup;
mod shell;

pub use setup::{Dom0, Setup};
pub use shell::{Output, Shell, ShellError};

/// Any failure of a test: its text is what the user reads.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Fails with a text made like `format!`, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}
