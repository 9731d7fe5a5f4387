//! Lines for whoever reads the domain's console: of the control domain the machine's log, of others a ring.

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use oxen_abi::numbers;

use crate::{hypercall, ring};

/// Prints a line.
#[macro_export]
macro_rules! line {
    ($($arguments:tt)*) => {
        $crate::console::print(format_args!($($arguments)*))
    };
}

/// Prints a line in one piece, so that nothing comes in between; what does not fit is cut.
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut text = ArrayString::<256>::new();
    // An error means that the rest does not fit.
    let _ = text.write_fmt(arguments);
    if text.is_full() {
        text.pop();
    }
    text.push('\n');
    // SAFETY: the text is only read.
    let result = unsafe {
        hypercall::call(
            numbers::CONSOLE_IO,
            numbers::CONSOLEIO_WRITE,
            text.len() as u64,
            text.as_ptr() as u64,
        )
    };
    if result < 0 {
        ring::write(text.as_bytes());
    }
}
