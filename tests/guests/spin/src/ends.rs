//! All the ways in which a guest may end.

use core::arch::global_asm;

use oxen_abi::sched::reason;
use oxen_guest_runtime::shut_down;

// A triple fault with a number in each register that tells which one it is (those of a domain's context, in its order): with
// no interrupt table the exception of `ud2` has no handler, nor has the one that follows.
global_asm!(
    ".section .text",
    ".global spin_fault",
    ".global spin_fault_here",
    "spin_fault:",
    "lidt [spin_no_table]",
    "movabs rax, 0x5111000000000000",
    "movabs rcx, 0x5111000000000001",
    "movabs rdx, 0x5111000000000002",
    "movabs rbx, 0x5111000000000003",
    "movabs rbp, 0x5111000000000005",
    "movabs rsi, 0x5111000000000006",
    "movabs rdi, 0x5111000000000007",
    "movabs r8,  0x5111000000000008",
    "movabs r9,  0x5111000000000009",
    "movabs r10, 0x511100000000000a",
    "movabs r11, 0x511100000000000b",
    "movabs r12, 0x511100000000000c",
    "movabs r13, 0x511100000000000d",
    "movabs r14, 0x511100000000000e",
    "movabs r15, 0x511100000000000f",
    "spin_fault_here:",
    "ud2",
    ".section .rodata",
    "spin_no_table: .word 0",
    ".quad 0",
);

unsafe extern "C" {
    fn spin_fault() -> !;
    fn spin_fault_here();
}

/// Address of the instruction that faults.
pub fn fault_address() -> usize {
    spin_fault_here as *const () as usize
}

/// Ends the guest as a letter says: `t` triple fault, `c` crash, `r` reboot, `p` power-off. Any other is passed over.
pub fn obey(letter: u8) {
    let why = match letter {
        // SAFETY: nothing of the guest runs after it.
        b't' => unsafe { spin_fault() },
        b'c' => reason::CRASH,
        b'r' => reason::REBOOT,
        b'p' => reason::POWEROFF,
        _ => return,
    };
    shut_down(why)
}
