//! Lines for the control domain's console.

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use oxen_abi::numbers;

use crate::hypercall;

/// Prints a line.
#[macro_export]
macro_rules! line {
    ($($arguments:tt)*) => {
        $crate::console::print(format_args!($($arguments)*))
    };
}

/// Prints a line in one hypercall, so that nothing comes in between; what does not fit is cut.
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut text = ArrayString::<256>::new();
    // An error means that the rest does not fit.
    let _ = text.write_fmt(arguments);
    if text.is_full() {
        text.pop();
    }
    text.push('\n');
    // SAFETY: the text is only read.
    unsafe {
        hypercall::call(
            numbers::CONSOLE_IO,
            numbers::CONSOLEIO_WRITE,
            text.len() as u64,
            text.as_ptr() as u64,
        )
    };
}
