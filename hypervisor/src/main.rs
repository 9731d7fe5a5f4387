//! The Oxen hypervisor.
fn main() {}
