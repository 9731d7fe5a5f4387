//! From the boot loader to a machine that can run guests.

pub mod loader;
pub mod memory_plan;
pub mod symbols;

use core::arch::global_asm;

use crate::console;

global_asm!(include_str!("entry.S"));

/// Bytes of the boot CPU's stack until the guarded stacks exist.
const EARLY_STACK: usize = 64 * 1024;

#[repr(C, align(4096))]
struct EarlyStack([u8; EARLY_STACK]);

static mut EARLY_STACK_MEMORY: EarlyStack = EarlyStack([0; EARLY_STACK]);

global_asm!(
    ".global early_stack_top",
    ".set early_stack_top, {stack} + {size}",
    stack = sym EARLY_STACK_MEMORY,
    size = const EARLY_STACK,
);

/// First Rust code of the boot CPU, on the early stack and the early page tables.
#[unsafe(no_mangle)]
extern "C" fn rust_entry(magic: u32, information: u32, entry_ticks: u64) -> ! {
    console::init();
    console::print(format_args!(
        "Oxen {} on a machine booted through multiboot2\n",
        env!("CARGO_PKG_VERSION")
    ));
    console::stage("64-bit code runs at its linked address");
    let loaded = loader::collect(magic, information);
    crate::bring_up(loaded, entry_ticks)
}
