//! How hypercalls are made: a number and arguments in registers, structures in the caller's memory, a value in return. What
//! they do lives in the hypervisor's binary.

mod argument;
mod registers;
#[cfg(test)]
mod tests;

pub use argument::Argument;
pub use registers::{Arguments, Convention};

use oxen_abi::Errno;

/// A vCPU that makes a hypercall, as far as its arguments go.
pub trait Caller {
    /// Whether it runs 64-bit code: decides about registers and about layouts of structures.
    fn is_64_bit(&self) -> bool;

    /// Copies from a linear address of the caller's, each byte once. Addresses wrap around.
    ///
    /// # Errors
    /// `Fault` if not all of it can be read.
    fn copy_in(&self, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno>;

    /// Copies to a linear address of the caller's.
    ///
    /// # Errors
    /// `Fault` if not all of it can be written; a part may have been.
    fn copy_out(&self, pointer: u64, bytes: &[u8]) -> Result<(), Errno>;
}
