//! An unprivileged guest that is there at once: it takes event channels, grants pages to dom0, makes a node and a watch in
//! xenstore, says so on its console, and gives nothing of it back. Memory that is not as new makes it crash. The command line
//! says what comes `then`: `stay` (the default) with a sign of life now and then, `devices`, which is the same with a disk and a
//! network card that are served, `poweroff`, `reboot`, `crash`, or `flood`, which fills the console without pause.
#![no_std]
#![no_main]

mod remains;

use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayString;
use oxen_abi::event_channel::cmd;
use oxen_abi::grant::entry;
use oxen_abi::{memory, sched};
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::xenstore::Xenstore;
use oxen_guest_runtime::{command_line, cpu, events, line, ring, shut_down};

const CONTROL_DOMAIN: u32 = 0;
/// Event channels of each kind, and grants.
const PORTS: usize = 16;
const GRANTS: usize = 16;
/// The first ones are the toolstack's (`GNTTAB_NR_RESERVED_ENTRIES`).
const FIRST_GRANT: usize = 8;
/// Frame from which pages are granted: RAM that nothing uses.
const GRANTED_FRAMES: u32 = (24 << 20) >> 12;
/// The state of xenbus of a front end that has said where its rings are.
const INITIALISED: u32 = 3;
/// Between two signs of life.
const PAUSE_NANOS: u64 = 100_000_000;

#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Where the grant table is mapped.
static mut TABLE: Page = Page([0; 4096]);

#[unsafe(no_mangle)]
fn guest_main() {
    remains::look_and_leave();
    events::bind_timer();
    // Daemons come and go; they bind the far end of the channel anew.
    ring::trust_channel();
    let mut store = Xenstore::open();
    let ports = take_ports();
    grant_pages();
    assert!(store.write("data/visitor", b"here"), "no node");
    assert!(store.watch("data", "visitor"), "no watch");
    line!("visitor: here");
    match command_line::value("then").unwrap_or("stay") {
        "stay" => stay(&mut store),
        "devices" => {
            announce_devices(&mut store, &ports);
            stay(&mut store)
        }
        "flood" => flood(),
        "poweroff" => shut_down(sched::reason::POWEROFF),
        "reboot" => shut_down(sched::reason::REBOOT),
        "crash" => shut_down(sched::reason::CRASH),
        other => panic!("then={other}?"),
    }
}

/// Says that its disk xvda and its first network card may be served, with rings in the first pages that it grants, and asks nothing of
/// them.
fn announce_devices(store: &mut Xenstore, ports: &[u32; PORTS]) {
    let page = |nth: usize| (FIRST_GRANT + nth) as u32;
    let mut say = |path: &str, number: u32| {
        let mut text = ArrayString::<16>::new();
        assert!(write!(text, "{number}").is_ok(), "{number} is too long");
        assert!(store.write(path, text.as_bytes()), "no node {path}");
    };
    say("device/vbd/51712/ring-ref", page(0));
    say("device/vbd/51712/event-channel", ports[0]);
    say("device/vbd/51712/state", INITIALISED);
    say("device/vif/0/tx-ring-ref", page(1));
    say("device/vif/0/rx-ring-ref", page(2));
    say("device/vif/0/event-channel", ports[1]);
    say("device/vif/0/request-rx-copy", 1);
    say("device/vif/0/state", INITIALISED);
}

/// Tells of itself by both daemons, for ever.
fn stay(store: &mut Xenstore) -> ! {
    static BEATS: AtomicU32 = AtomicU32::new(0);
    loop {
        nap(PAUSE_NANOS);
        let beat = BEATS.fetch_add(1, Ordering::Relaxed);
        // Whoever reads the store finds the time in the console's log, so the value itself need not change.
        assert!(store.write("data/visitor", b"well"), "the store is gone");
        line!("visitor: beat {beat}");
    }
}

fn flood() -> ! {
    // Long lines: each costs an event.
    const FILLING: &str = match str::from_utf8(&[b'.'; 224]) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    };
    for number in 0_u64.. {
        line!("visitor: flood {number} {FILLING}");
    }
    unreachable!("numbers do not end")
}

/// Halts for a while.
fn nap(nanos: u64) {
    events::forget();
    events::set_timer(nanos);
    cpu::halt();
    cpu::interrupts(false);
}

/// Gives those that the control domain may bind to.
fn take_ports() -> [u32; PORTS] {
    core::array::from_fn(|_| {
        // evtchn_alloc_unbound: domain and remote u16, port u32.
        let mut argument = [u32::from(SELF) | CONTROL_DOMAIN << 16, 0];
        let result = hypercall::event_channel_op(cmd::ALLOC_UNBOUND, &mut argument);
        assert!(result == 0, "alloc_unbound: {result}");
        events::bind_ipi(0);
        argument[1]
    })
}

fn grant_pages() {
    let place = (&raw mut TABLE).cast::<u8>();
    // xen_add_to_physmap: domid, size u16, space u32; index; frame.
    let mut argument = [
        u64::from(SELF) | u64::from(memory::space::GRANT_TABLE) << 32,
        0,
        place as u64 >> 12,
    ];
    let result = hypercall::memory_op(memory::cmd::ADD_TO_PHYSMAP, &mut argument);
    assert!(result == 0, "the grant table: {result}");
    for index in 0..GRANTS {
        let at = (FIRST_GRANT + index) * entry::V1_SIZE;
        let frame = GRANTED_FRAMES + index as u32;
        // SAFETY: inside of the page, which is the grant table now; the frame comes before the flags that make it count.
        unsafe {
            place
                .add(at + entry::V1_FRAME)
                .cast::<u32>()
                .write_volatile(frame);
            let header = u32::from(entry::PERMIT_ACCESS) | CONTROL_DOMAIN << 16;
            place.add(at).cast::<u32>().write_volatile(header);
        }
    }
}
