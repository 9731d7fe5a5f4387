//! A second domain, and what it costs to let it run: by turns with this one, and woken by events.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::{event_channel, memory, numbers, sched};
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::{cpu, domain, events, line};

use crate::measure::{RUNS, Samples, report};

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
/// Where this domain, whose RAM ends before, sees the first two.
const WINDOW: u64 = 0x3000_0000;

/// Places of words.
mod word {
    pub const ANSWERS: u64 = 0;
    pub const TURNS: u64 = 4;
    pub const PORT: u64 = 8;
    pub const MAPPED: u64 = 12;
    /// `sched_poll`: a pointer to ports, their number, a time.
    pub const POLL: u64 = 16;
    /// `xen_add_to_physmap`: domain and size, space, index, frame.
    pub const PLACE: u64 = 48;
}

fn at(word: u64) -> &'static AtomicU32 {
    let pointer = core::ptr::with_exposed_provenance::<AtomicU32>((WINDOW + PAGE + word) as usize);
    // SAFETY: the page is mapped from `make` on and stays; both domains touch its words atomically.
    unsafe { &*pointer }
}

/// Makes the domain and measures.
pub fn run() {
    let port = make();
    report("yield to another domain and back", turns());
    at(word::ANSWERS).store(1, Ordering::SeqCst);
    report("event round trip between domains", round_trips(port));
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
    while at(word::TURNS).load(Ordering::SeqCst) == 0 {
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

/// Ticks of yields in which the other domain had one turn: two switches.
fn turns() -> Samples {
    /// Calls that are tried for one sample.
    const PATIENCE: usize = 1000;
    core::array::from_fn(|_| {
        for _ in 0..PATIENCE {
            let before = at(word::TURNS).load(Ordering::SeqCst);
            let start = cpu::ticks();
            yield_now();
            let ticks = cpu::ticks() - start;
            if at(word::TURNS).load(Ordering::SeqCst) == before.wrapping_add(1) {
                return ticks;
            }
        }
        line!("bench: error: a yield never gives the other domain one turn");
        0
    })
}

/// Ticks from a send, over the other domain, to the handler of what it sends back. This vCPU halts meanwhile.
fn round_trips(port: u32) -> Samples {
    // The first ones may find it before its wait.
    for _ in 0..RUNS {
        round_trip(port);
    }
    core::array::from_fn(|_| round_trip(port))
}

fn round_trip(port: u32) -> u64 {
    cpu::interrupts(false);
    cpu::clear_ticks(0);
    let start = cpu::ticks();
    events::send(port);
    loop {
        let ticks = cpu::callback_ticks(0);
        if ticks != 0 {
            cpu::interrupts(true);
            return ticks - start;
        }
        // Interrupts come in with the halt, not before: none is missed.
        cpu::halt();
        cpu::interrupts(false);
    }
}

fn yield_now() {
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}
