//! What `cargo xtask` does, as a library: the integration tests use the same machines and images.
#![forbid(unsafe_code)]

pub mod bench;
pub mod build;
pub mod clean;
pub mod cli;
pub mod doctor;
pub mod host;
pub mod iso;
pub mod lint;
pub mod machine;
pub mod progress;
pub mod provision;
pub mod run;
pub mod test;
