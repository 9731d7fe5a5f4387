//! What comes from guests, from files and from the boot loader, in any shape. `tests/fuzz` of the workspace says how
//! inputs are made and kept.

mod command_lines;
mod contexts;
mod hypercalls;
mod instructions;
mod kernels;
mod page_walks;

/// A target with its corpus in this crate.
fn target(name: &str) -> oxen_fuzz::Target {
    oxen_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), name)
}

/// Takes a number off the front; what is missing is 0.
fn number(input: &mut &[u8]) -> u64 {
    let (head, rest) = input.split_at(input.len().min(8));
    *input = rest;
    let mut bytes = [0; 8];
    bytes[..head.len()].copy_from_slice(head);
    u64::from_le_bytes(bytes)
}

/// Takes a byte off the front, 0 if there is none.
fn byte(input: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = input.split_first() else {
        return 0;
    };
    *input = rest;
    first
}
