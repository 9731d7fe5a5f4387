//! Operations that the guest does and that are over when the next instruction runs.

use oxen_abi::{grant, memory, numbers, sched, version};
use oxen_guest_runtime::apic::{self, register};
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::{cpu, events, line};

use crate::measure::{Results, measure};

/// A hypercall number that Xen does not have either.
const UNKNOWN_HYPERCALL: u64 = 63;
/// A port that is not open.
const BAD_PORT: u32 = 4000;
/// MSRs that are intercepted and known.
const KNOWN_MSRS: [(&str, u32); 3] = [
    ("rdmsr APIC_BASE", 0x1B),
    ("rdmsr MTRRcap", 0xFE),
    ("rdmsr MISC_ENABLE", 0x1A0),
];
const UNKNOWN_MSR: u32 = 0x4321;
const KERNEL_GS_BASE: u32 = 0xC000_0102;

/// One row.
type Row = (&'static str, fn());

const ROWS: &[Row] = &[
    ("cpuid 0", || cpu::cpuid(0)),
    ("cpuid 1", || cpu::cpuid(1)),
    ("cpuid 0x40000000", || cpu::cpuid(0x4000_0000)),
    ("xen_version", || {
        ignore(hypercall::plain(
            numbers::XEN_VERSION,
            version::cmd::VERSION,
            0,
        ));
    }),
    ("unknown hypercall", || {
        ignore(hypercall::plain(UNKNOWN_HYPERCALL, 0, 0));
    }),
    ("sched_op yield", || {
        ignore(hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0));
    }),
    ("event send, bad port", || ignore(events::send(BAD_PORT))),
    ("grant query_size", query_grants),
    ("rdmsr KERNEL_GS_BASE", || {
        ignore(cpu::read_msr(KERNEL_GS_BASE));
    }),
    ("CR0.TS on and off", cpu::toggle_task_switched),
    ("out 0x80", || cpu::out(0x80)),
    ("out to a refused port", || cpu::out(0x20)),
];

fn ignore<T>(value: T) {
    core::hint::black_box(value);
}

/// Everything that needs no interrupt.
pub fn run(results: &mut Results) {
    for &(name, operation) in ROWS {
        results.add(name, measure(operation));
    }
    for (name, index) in KNOWN_MSRS {
        results.add(name, measure(|| ignore(cpu::read_msr(index))));
    }
    let faults = cpu::protection_faults(0);
    results.add(
        "rdmsr unknown, with #GP",
        measure(|| ignore(cpu::read_msr(UNKNOWN_MSR))),
    );
    if cpu::protection_faults(0) == faults {
        line!("bench: error: an unknown MSR raised no #GP");
    }
    sends(results);
    memory(results);
}

/// Sends that announce nothing.
fn sends(results: &mut Results) {
    let port = events::bind_ipi(0);
    events::mask(port, true);
    results.add(
        "event send, masked",
        measure(|| {
            events::forget();
            ignore(events::send(port));
        }),
    );
    events::mask(port, false);
    events::forget();
    events::send(port);
    results.add(
        "event send, pending",
        measure(|| ignore(events::send(port))),
    );
    events::forget();
}

fn query_grants() {
    // gnttab_query_size: domid, three words of results.
    let mut argument = [u32::from(SELF), 0, 0, 0];
    // SAFETY: the argument is as large as its structure.
    ignore(unsafe {
        hypercall::call(
            numbers::GRANT_TABLE_OP,
            grant::cmd::QUERY_SIZE,
            argument.as_mut_ptr() as u64,
            1,
        )
    });
}

/// `xen_memory_reservation`.
#[repr(C)]
struct Reservation {
    frames: u64,
    count: u64,
    order: u32,
    flags: u32,
    domain: u16,
}

/// One page given back and taken again, time about.
fn memory(results: &mut Results) {
    /// A frame of the guest's that it does not use: 64 MiB.
    const FRAME: u64 = 64 << 8;
    let frame = FRAME;
    let mut reservation = Reservation {
        frames: &raw const frame as u64,
        count: 1,
        order: 0,
        flags: 0,
        domain: SELF,
    };
    let mut populate = [0; crate::measure::RUNS];
    let mut index = 0;
    let decrease = core::array::from_fn(|_| {
        let start = cpu::ticks();
        let gone = hypercall::memory_op(memory::cmd::DECREASE_RESERVATION, &mut reservation);
        let between = cpu::ticks();
        let back = hypercall::memory_op(memory::cmd::POPULATE_PHYSMAP, &mut reservation);
        populate[index] = cpu::ticks() - between;
        index += 1;
        if (gone, back) != (1, 1) {
            line!("bench: error: decrease_reservation {gone}, populate_physmap {back}");
        }
        between - start
    });
    results.add("decrease_reservation, 4 KiB", decrease);
    results.add("populate_physmap, 4 KiB", populate);
}

/// Device memory that nobody has: in no domain that has no devices.
pub fn unbacked_page(results: &mut Results) {
    const PLACE: usize = 0xE000_0000;
    let place = core::ptr::with_exposed_provenance_mut::<u32>(PLACE);
    results.add(
        "MMIO read of an unbacked page",
        // SAFETY: identity-mapped, uncached, and nobody's: it reads as all ones.
        measure(|| ignore(unsafe { place.read_volatile() })),
    );
    results.add(
        "MMIO write of an unbacked page",
        // SAFETY: as above; nothing takes the value.
        measure(|| unsafe { place.write_volatile(0) }),
    );
}

/// Registers of the local APIC through its page.
pub fn apic_page(results: &mut Results) {
    results.add(
        "APIC page, read ID",
        measure(|| ignore(apic::read(register::ID))),
    );
    results.add(
        "APIC page, read TMCCT",
        measure(|| ignore(apic::read(register::TIMER_CURRENT))),
    );
    results.add(
        "APIC page, write TMICT",
        measure(|| apic::write(register::TIMER_COUNT, 0)),
    );
    results.add(
        "APIC page, EOI with nothing in service",
        measure(|| apic::write(register::EOI, 0)),
    );
}

/// The same through MSRs.
pub fn apic_msrs(results: &mut Results) {
    results.add(
        "x2APIC, read ID",
        measure(|| ignore(cpu::read_msr(apic::msr(register::ID)))),
    );
    results.add(
        "x2APIC, EOI with nothing in service",
        measure(|| cpu::write_msr(apic::msr(register::EOI), 0)),
    );
}
