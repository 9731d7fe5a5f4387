//! Two guests that dom0's tools make, one to answer and one to ask, each with the other's number on its command line. They
//! share a page by a grant of the one that answers, which also makes the port between them.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::{event_channel, grant, memory};
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::{events, grants};

use crate::measure::Results;
use crate::turns::{self, yield_now};

const PAGE: u64 = 4096;
/// Frames of the answering guest's RAM that it does not use otherwise: its grant table, and the words.
const TABLE: u64 = 60 << 8;
const WORDS: u64 = TABLE + 1;
/// The first reference that is not the toolstack's (`GNTTAB_NR_RESERVED_ENTRIES`).
const REFERENCE: u32 = 8;
/// A nap, in nanoseconds, while the other guest is not there yet.
const NAP: u64 = 20_000_000;

/// Answers the guest of that number for ever.
pub fn answer(partner: u16) -> ! {
    grant_words(partner);
    // evtchn_alloc_unbound: its domain and the far end's, port.
    let mut argument = [u32::from(SELF) | u32::from(partner) << 16, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::ALLOC_UNBOUND, &mut argument);
    assert!(result == 0, "alloc_unbound: {result}");
    let port = argument[1];
    // It is looked at, and interrupts nobody.
    events::mask(port, true);
    wait_for(port);
    while word(turns::ANSWERS).load(Ordering::SeqCst) == 0 {
        word(turns::TURNS).fetch_add(1, Ordering::SeqCst);
        yield_now();
    }
    loop {
        wait_for(port);
        events::send(port);
    }
}

fn wait_for(port: u32) {
    while !events::take(port) {
        events::poll(&[port], 0);
    }
}

/// A word of this guest's own page.
fn word(place: u64) -> &'static AtomicU32 {
    let pointer = core::ptr::with_exposed_provenance::<AtomicU32>((WORDS * PAGE + place) as usize);
    // SAFETY: the guest's own RAM, which nothing else uses; both domains touch its words atomically.
    unsafe { &*pointer }
}

/// Lets the partner map the words.
fn grant_words(partner: u16) {
    for place in [turns::ANSWERS, turns::TURNS] {
        word(place).store(0, Ordering::SeqCst);
    }
    // xen_add_to_physmap: domain and size, space; index; frame.
    let mut place = [
        u64::from(SELF) | u64::from(memory::space::GRANT_TABLE) << 32,
        0,
        TABLE,
    ];
    let result = hypercall::memory_op(memory::cmd::ADD_TO_PHYSMAP, &mut place);
    assert!(result == 0, "no grant table: {result}");
    let at = TABLE as usize * PAGE as usize + REFERENCE as usize * grant::entry::V1_SIZE;
    let header = u32::from(grant::entry::PERMIT_ACCESS) | u32::from(partner) << 16;
    for (offset, value) in [(grant::entry::V1_FRAME, WORDS as u32), (0, header)] {
        let pointer = core::ptr::with_exposed_provenance::<AtomicU32>(at + offset);
        // SAFETY: an entry of the table's page, which was just put there; the hypervisor touches it atomically too.
        unsafe { &*pointer }.store(value, Ordering::SeqCst);
    }
}

/// Measures against the guest of that number.
pub fn ask(partner: u16, results: &mut Results) {
    let port = find_port(partner);
    grants::map(partner, REFERENCE, turns::WORDS);
    events::send(port);
    while turns::at(turns::TURNS).load(Ordering::SeqCst) == 0 {
        yield_now();
    }
    let names = [
        "yield to another guest and back",
        "event round trip between guests",
    ];
    turns::measure(port, names, results);
}

/// Binds to the only port of the partner's that is meant for this guest.
fn find_port(partner: u16) -> u32 {
    /// Ports to try: the toolstack makes a few.
    const MOST: u32 = 16;
    loop {
        for far in 1..MOST {
            // evtchn_bind_interdomain: domain and port there, port here.
            let mut argument = [partner.into(), far, 0];
            let command = event_channel::cmd::BIND_INTERDOMAIN;
            if hypercall::event_channel_op(command, &mut argument) == 0 {
                return argument[2];
            }
        }
        events::nap(NAP);
    }
}
