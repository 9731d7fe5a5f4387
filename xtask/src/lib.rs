//! What `cargo xtask` does, as a library: the integration tests use the same machines and images.

pub mod build;
pub mod doctor;
pub mod host;
pub mod iso;
pub mod machine;
pub mod provision;
pub mod run;
pub mod test;
