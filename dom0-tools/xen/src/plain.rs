//! Types that may be read from memory that someone else wrote.

/// A value of which every bit pattern is valid.
///
/// # Safety
/// Implementors are integers, or `repr(C)` structures and arrays of them: no references, enums, booleans or destructors.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($name:ty),*) => {
        $(
            // SAFETY: an integer.
            unsafe impl Plain for $name {}
        )*
    };
}
plain!(u8, u16, u32, u64, i32);

// SAFETY: an array of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
