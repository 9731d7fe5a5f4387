//! Single keys on the serial console that make the hypervisor tell about itself.

use core::sync::atomic::Ordering;

use oxen_core::id::Port;

use crate::console;
use crate::cpu;
use crate::domain::registry;
use crate::memory::{frames, heap};
use crate::stop::{self, Reason};
use crate::time;
use crate::vcpu::counters::{self, Exits, Work};

type Action = fn();

/// Keys, what they show, and how.
const KEYS: &[(u8, &str, Action)] = &[
    (b'h', "this help", help),
    (b'c', "CPUs", show_cpus),
    (b'd', "domains and their vCPUs", show_domains),
    (b'e', "event channels", show_events),
    (b'g', "grant tables and the grants in use", show_grants),
    (
        b'l',
        "the log from its beginning, as far as it is kept",
        show_log,
    ),
    (b'm', "memory", show_memory),
    (
        b'x',
        "exits and calls of the domains, and where the time goes from the first press on",
        show_exits,
    ),
    (b't', "time", show_time),
    (b'R', "reset the machine", || {
        stop::finish(Reason::Reboot, format_args!("by debug key"))
    }),
];

/// Does what a key stands for.
pub fn press(key: u8) {
    match KEYS.iter().find(|(known, ..)| *known == key) {
        Some((_, _, action)) => action(),
        None if key.is_ascii_graphic() => {
            console::print(format_args!("no debug key '{}'; h for help\n", key as char))
        }
        None => {}
    }
}

fn help() {
    for (key, what, _) in KEYS {
        console::print(format_args!("'{}' {what}\n", *key as char));
    }
}

fn show_cpus() {
    for cpu in cpu::percpu::all() {
        console::print(format_args!(
            "cpu {}: APIC ID {}, {}, {} guest entries, {} interrupts, {} NMIs\n",
            cpu.id(),
            cpu.apic_id(),
            if cpu.idle.load(Ordering::Relaxed) {
                "idle"
            } else {
                "busy"
            },
            cpu.entries.load(Ordering::Relaxed),
            cpu.interrupts.load(Ordering::Relaxed),
            cpu.nmis.load(Ordering::Relaxed),
        ));
    }
}

fn show_domains() {
    for domain in registry::all() {
        console::print(format_args!(
            "domain {}: {} KiB, {} table pages{}{}{}\n",
            domain.id,
            domain.own.lock().total() >> 10,
            domain.p2m.lock().tables(),
            if domain.life.is_paused() {
                ", paused"
            } else {
                ""
            },
            if domain.life.is_dying() {
                ", dying"
            } else {
                ""
            },
            if domain.life.shutdown_reason().is_some() {
                ", shut down"
            } else {
                ""
            },
        ));
        for vcpu in &domain.vcpus {
            console::print(format_args!(
                "vcpu {} on cpu {}: {}, {:?}, timer {:?}, upcall {}\n",
                vcpu.id,
                vcpu.cpu(),
                if vcpu.is_up() { "up" } else { "down" },
                vcpu.runstate.lock().state(),
                vcpu.timer.ticks(),
                domain.events.upcall_pending(vcpu.id),
            ));
        }
    }
}

fn show_exits() {
    counters::time_guest_mode();
    for domain in registry::all() {
        console::print(format_args!("domain {}: {}\n", domain.id, Exits(&domain)));
        console::print(format_args!("domain {}: {}\n", domain.id, Work(&domain)));
    }
    for cpu in cpu::percpu::all() {
        let idle = cpu.idle_ticks();
        console::print(format_args!("cpu {}: idle: ticks {idle}\n", cpu.id()));
    }
    console::print(format_args!("now: ticks {}\n", time::ticks()));
}

fn show_events() {
    for domain in registry::all() {
        domain
            .events
            .for_each(|Port(port), channel, pending, masked| {
                console::print(format_args!(
                    "domain {} port {port}: {:?} to vcpu {}{}{}\n",
                    domain.id,
                    channel.status(),
                    channel.notify_vcpu(),
                    if pending { ", pending" } else { "" },
                    if masked { ", masked" } else { "" }
                ));
            });
    }
}

fn show_grants() {
    for domain in registry::all() {
        let (mapped, most_mapped, bytes) = domain.grants.usage();
        let table = domain.grants.table();
        let (entries, uses) = table.in_use();
        console::print(format_args!(
            "domain {}: version {}, {} of {} frames, {entries} entries in use {uses} times, {mapped} of {most_mapped} handles, {} KiB\n",
            domain.id,
            table.version(),
            table.frames(),
            table.limits().frames,
            bytes >> 10,
        ));
        table.for_each_in_use(|grant, grantee, uses, written, content| {
            console::print(format_args!(
                "domain {} grant {grant} to domain {grantee}: {uses} uses{}, {content:x?}\n",
                domain.id,
                if written { ", for writing" } else { "" },
            ));
        });
    }
}

fn show_log() {
    let (mut position, mut piece) = (console::log_begin(None), [0; 256]);
    loop {
        let (length, from) = console::read_log(position, &mut piece);
        if length == 0 {
            break;
        }
        position = from + length as u64;
        // Straight to the line: what is shown of the log does not belong in the log.
        for line in piece[..length].split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    console::write_guest(text);
                    console::write_guest(b"\r\n");
                }
                None => console::write_guest(line),
            }
        }
    }
}

fn show_memory() {
    let (free, total) = (frames::free_count(), frames::total_count());
    let (used, left) = heap::small_usage();
    console::print(format_args!(
        "{} of {} KiB free; small heap: {used} bytes used, {left} free\n",
        free * 4,
        total * 4
    ));
}

fn show_time() {
    console::print(format_args!(
        "system time {} ns, TSC {} kHz\n",
        time::nanos(),
        time::khz()
    ));
}
