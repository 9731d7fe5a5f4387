//! Prints what there is of everything that domains use up, a line each, so that two of its outputs are equal where nothing was
//! left behind; the matrix's tests run it in dom0.

use std::error::Error;

use oxen_xen::privcmd::Privcmd;
use oxen_xen::{DOMID_SELF, domain, event_channel, host};

/// Kinds of event channels (`EVTCHNSTAT_*`), by number.
const KINDS: [&str; 6] = ["closed", "unbound", "interdomain", "pirq", "virq", "ipi"];
/// Ports looked at: more than a dom0 of these tests has.
const PORTS: u32 = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let xen = Privcmd::open()?;
    let machine = host::physinfo(&xen)?;
    println!("free pages {}", machine.free_pages + machine.scrub_pages);
    println!("claimed pages {}", machine.outstanding_pages);
    println!("domains {}", domain::list(&xen)?.len());
    let mut counts = [0; KINDS.len()];
    for port in 1..PORTS {
        let Ok(kind) = event_channel::status(&xen, DOMID_SELF, port) else {
            break;
        };
        counts[kind as usize] += 1;
    }
    for (name, count) in KINDS.iter().zip(counts).skip(1) {
        println!("{name} ports {count}");
    }
    for line in told(&xen, b"g")?.lines() {
        // One line for each domain.
        if line.contains(" entries in use ") {
            println!("grants of {}", line.trim_start_matches("(oxen) "));
        }
    }
    Ok(())
}

/// What the hypervisor prints when keys are pressed.
fn told(xen: &Privcmd, keys: &[u8]) -> Result<String, Box<dyn Error>> {
    const SIZE: u32 = 64 << 10;
    let before = host::read_console(xen, SIZE, None, false)?.next;
    host::debug_keys(xen, keys)?;
    let after = host::read_console(xen, SIZE, Some(before), false)?;
    Ok(String::from_utf8_lossy(&after.text).into_owned())
}
