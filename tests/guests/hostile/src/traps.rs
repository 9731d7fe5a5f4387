//! Interrupts on any vector, as calls may ask for any; exceptions end the guest.

use core::arch::{asm, global_asm};

use oxen_abi::sched;
use oxen_guest_runtime::{cpu, line, shut_down};

// GS: the address of the vCPU's `vcpu_info` comes first. Events are only acknowledged: nobody waits for one of them.
global_asm!(
    ".section .text",
    ".balign 16",
    ".global trap_entries",
    "trap_entries:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    "push vector",
    "jmp trap_common",
    ".set vector, vector + 1",
    ".endr",
    "trap_common:",
    "push rax",
    "mov rax, [rsp + 8]",
    "cmp rax, 2",
    "je 2f",
    "cmp rax, 16",
    "jb 3f",
    "mov rax, gs:[0]",
    "mov byte ptr [rax], 0",
    "mov qword ptr [rax + 8], 0",
    "mov eax, 0xFEE000B0",
    "mov dword ptr [rax], 0",
    "2: pop rax",
    "add rsp, 8",
    "iretq",
    "3: mov rdi, rax",
    "lea rsi, [rsp + 16]",
    "and rsp, -16",
    "call trap_fatal",
    "ud2",
);

unsafe extern "C" {
    static trap_entries: u8;
}

/// Bytes of an entry above.
const ENTRY: u64 = 16;

/// Loads the table, the same for all vCPUs.
pub fn load() {
    let first = &raw const trap_entries as u64;
    let handlers = (0..=255).map(|vector| (vector, first + u64::from(vector) * ENTRY));
    // SAFETY: there are as many entries above, of that size.
    unsafe { cpu::load_handlers(handlers) };
}

#[unsafe(no_mangle)]
extern "C" fn trap_fatal(vector: u64, frame: *const u64) -> ! {
    let cr2: u64;
    // SAFETY: reads a register, and what the CPU pushed.
    let words = unsafe {
        asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack));
        [frame.read(), frame.add(1).read()]
    };
    line!("hostile: FAILED: exception {vector} in the guest, {words:#x?}, CR2 {cr2:#x}");
    shut_down(sched::reason::CRASH)
}
