//! vCPUs beyond the first one, each with a stack of its own: started by `VCPUOP_initialise` and `VCPUOP_up`, each runs one
//! function, which is given the vCPU's number.

use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use oxen_abi::vcpu::{cmd, context};

use crate::hypercall;

/// Most vCPUs, with the first one.
pub const MOST: usize = 4;
const STACK: usize = 32 << 10;

#[repr(C, align(16))]
struct Stacks([[u8; STACK]; MOST]);

static mut STACKS: Stacks = Stacks([[0; STACK]; MOST]);

/// What they run.
static FUNCTION: AtomicUsize = AtomicUsize::new(0);

// RDI: the vCPU's number. It starts in 64-bit mode, with segments that are not the guest's own yet.
global_asm!(
    ".section .text",
    ".global others_entry",
    "others_entry:",
    "lgdt [gdt_pointer]",
    "push 8",
    "lea rax, [1f]",
    "push rax",
    "retfq",
    "1: call load_segments",
    "xor ebp, ebp",
    "call runtime_other",
    "2: hlt",
    "jmp 2b",
);

unsafe extern "C" {
    static page_root: u8;
    fn others_entry();
}

/// Starts the vCPUs from 1 on, so that there are `vcpus`, in `function`, with interrupts off.
pub fn start(vcpus: usize, function: fn(usize) -> !) {
    const PAGING: u64 = 1 << 31 | 1 << 5 | 1 << 4 | 1;
    const PAE_AND_SSE: u64 = 0x620;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    const RSP: usize = 8 * 4;
    const RDI: usize = 8 * 7;
    assert!(vcpus <= MOST, "{vcpus} vCPUs, and stacks for {MOST}");
    FUNCTION.store(function as usize, Ordering::Release);
    for vcpu in 1..vcpus {
        let stack = (&raw mut STACKS).cast::<u8>() as u64 + ((vcpu + 1) * STACK) as u64;
        let mut bytes = [0; context::SIZE];
        bytes[context::MODE..][..4].copy_from_slice(&context::MODE_64.to_le_bytes());
        for (field, value) in [
            (RSP, stack),
            (RDI, vcpu as u64),
            (context::IP_64, others_entry as *const () as u64),
            (context::CR0_64, PAGING),
            (context::CR3_64, &raw const page_root as u64),
            (context::CR4_64, PAE_AND_SSE),
            (context::EFER_64, LONG_MODE),
        ] {
            bytes[context::REGISTERS + field..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let made = hypercall::vcpu_op(cmd::INITIALISE, vcpu as u32, &bytes);
        let up = hypercall::vcpu_op(cmd::UP, vcpu as u32, &());
        assert!((made, up) == (0, 0), "vCPU {vcpu}: {made}, {up}");
    }
}

#[unsafe(no_mangle)]
extern "C" fn runtime_other(vcpu: usize) -> ! {
    let address = FUNCTION.load(Ordering::Acquire);
    // SAFETY: `start` stored a function of this type before it started anyone.
    let function = unsafe { core::mem::transmute::<usize, fn(usize) -> !>(address) };
    function(vcpu)
}
