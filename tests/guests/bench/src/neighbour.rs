//! A second domain that this one makes, as a control domain can, to take turns with it.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use oxen_abi::{event_channel, memory};
use oxen_guest_runtime::domain;
use oxen_guest_runtime::hypercall::{self, SELF};

use crate::measure::Results;
use crate::turns::{self, at, yield_now};

// 32-bit code without paging. EBP: the page of words below; ESI: where the shared page shall be. While the word "answers" is 0
// it yields again and again, then it waits for its port and sends back for each event.
global_asm!(
    ".section .rodata",
    ".code32",
    "neighbour_code:",
    "   mov eax, 12", // memory_op
    "   mov ebx, 7",  // add_to_physmap
    "   lea ecx, [ebp + 48]",
    "   vmcall",
    "   mov [ebp + 12], eax",
    "1: cmp dword ptr [ebp], 0",
    "   jne 2f",
    "   inc dword ptr [ebp + 4]",
    "   mov eax, 29",  // sched_op
    "   xor ebx, ebx", // yield
    "   vmcall",
    "   jmp 1b",
    "2: mov eax, 29",
    "   mov ebx, 3", // poll
    "   lea ecx, [ebp + 16]",
    "   vmcall",
    "   mov edx, [ebp + 8]",
    "   lock btr [esi + 2048], edx",
    "   jnc 2b",
    "   mov eax, 32", // event_channel_op
    "   mov ebx, 4",  // send
    "   lea ecx, [ebp + 8]",
    "   vmcall",
    "   jmp 2b",
    "neighbour_code_end:",
    ".code64",
    ".section .text",
);

unsafe extern "C" {
    static neighbour_code: u8;
    static neighbour_code_end: u8;
}

const PAGE: u64 = 4096;
/// Its frames: code, words, and a place for the shared page.
const CODE: u64 = 0x100;
const WORDS: u64 = 0x101;
const SHARED: u64 = 0x102;
/// Where this domain sees the first two.
const WINDOW: u64 = turns::WORDS - PAGE;

/// Places of words behind those of [`turns`].
mod word {
    pub const PORT: u64 = 8;
    pub const MAPPED: u64 = 12;
    /// `sched_poll`: a pointer to ports, their number, a time.
    pub const POLL: u64 = 16;
    /// `xen_add_to_physmap`: domain and size, space, index, frame.
    pub const PLACE: u64 = 48;
}

/// Makes the domain and measures.
pub fn run(results: &mut Results) {
    turns::measure(
        make(),
        [
            "yield to another domain and back",
            "event round trip between domains",
        ],
        results,
    );
}

/// Makes it run; returns this domain's port to it.
fn make() -> u32 {
    let (result, id) = domain::create(domain::DEFAULT);
    assert!(result == 0, "createdomain: {result}");
    domain::populate(id, &[CODE, WORDS]);
    let first = WINDOW / PAGE;
    domain::map_foreign(id, &[CODE, WORDS], &[first, first + 1]);
    copy_code();
    let far = allocate_port(id);
    let words = WORDS * PAGE;
    for (place, value) in [
        (word::PORT, far),
        (word::POLL, (words + word::PORT) as u32),
        (word::POLL + 4, 1),
        (word::PLACE, SELF.into()),
        (word::PLACE + 4, memory::space::SHARED_INFO),
        (word::PLACE + 12, SHARED as u32),
        (word::MAPPED, u32::MAX),
    ] {
        at(place).store(value, Ordering::SeqCst);
    }
    let registers = [(domain::EBP, words), (domain::ESI, SHARED * PAGE)];
    domain::start(id, CODE * PAGE, &registers);
    // evtchn_bind_interdomain: domain and port there, port here.
    let mut argument = [id.into(), far, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::BIND_INTERDOMAIN, &mut argument);
    assert!(result == 0, "bind_interdomain: {result}");
    while at(turns::TURNS).load(Ordering::SeqCst) == 0 {
        yield_now();
    }
    let mapped = at(word::MAPPED).load(Ordering::SeqCst);
    assert!(mapped == 0, "the other domain's shared page: {mapped}");
    argument[2]
}

/// The code, with the hypercall instruction of the CPU's vendor.
fn copy_code() {
    const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];
    const VMMCALL: [u8; 3] = [0x0F, 0x01, 0xD9];
    let (from, to) = (&raw const neighbour_code, &raw const neighbour_code_end);
    // SAFETY: the code's own bounds; and a page of the other domain's that is mapped and that nobody else uses yet.
    let code = unsafe {
        let length = to.offset_from_unsigned(from);
        let page = core::ptr::with_exposed_provenance_mut::<u8>(WINDOW as usize);
        page.copy_from_nonoverlapping(from, length);
        core::slice::from_raw_parts_mut(page, length)
    };
    if hypercall::is_amd() {
        for at in 0..code.len() - 2 {
            if code[at..at + 3] == VMCALL {
                code[at..at + 3].copy_from_slice(&VMMCALL);
            }
        }
    }
}

/// A port of the other domain's for this one.
fn allocate_port(id: u16) -> u32 {
    // evtchn_alloc_unbound: its domain and the far end's, port.
    let mut argument = [u32::from(id) | u32::from(SELF) << 16, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::ALLOC_UNBOUND, &mut argument);
    assert!(result == 0, "alloc_unbound: {result}");
    argument[1]
}
