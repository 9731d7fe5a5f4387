//! Asks the hypervisor what the verbs of `ox` do not, and prints a line for each answer; `tests/matrix/control.rs` runs it in
//! dom0: `control_probe DOMID`, with DOMID a paused guest of one vCPU.

#[path = "control_probe/contexts.rs"]
mod contexts;
#[path = "control_probe/multicall.rs"]
mod multicall;

use std::error::Error;

use oxen_xen::foreign::Mapping;
use oxen_xen::privcmd::Privcmd;
use oxen_xen::{domain, guest_memory, host, memory};

const NMI: u32 = 0;

fn main() -> Result<(), Box<dyn Error>> {
    let domid: u16 = std::env::args()
        .nth(1)
        .ok_or("a domain's number is wanted")?
        .parse()?;
    let xen = Privcmd::open()?;
    log(&xen)?;
    machine(&xen)?;
    claims(&xen, domid)?;
    policy(&xen, domid)?;
    multicall::check(&xen)?;
    contexts::look(&xen, domid)?;
    contexts::change(&xen, domid)?;
    copies(&xen, domid)?;
    // An NMI to a vCPU that exists, one that does not, and a button that nobody has.
    domain::send_trigger(&xen, domid, NMI, 0)?;
    println!(
        "trigger: {:?} {:?}",
        domain::send_trigger(&xen, domid, NMI, 99).map_err(|error| error.raw_os_error()),
        domain::send_trigger(&xen, domid, 3, 0).map_err(|error| error.raw_os_error())
    );
    memory::set_target(&xen, domid, 1)?;
    println!("probe: done");
    Ok(())
}

/// The log in two pieces is the log at once; what a key prints comes behind.
fn log(xen: &Privcmd) -> Result<(), Box<dyn Error>> {
    let whole = host::read_console(xen, 65536, None, false)?;
    let first = host::read_console(xen, 300, None, false)?;
    let start = whole.next.wrapping_sub(u32::try_from(whole.text.len())?);
    let rest = host::read_console(xen, 65536, Some(start.wrapping_add(300)), false)?;
    let joined = [first.text.as_slice(), rest.text.as_slice()].concat();
    println!("log: pieces {}", joined.starts_with(&whole.text));
    host::debug_keys(xen, b"t")?;
    let after = host::read_console(xen, 65536, Some(rest.next), false)?;
    let text = String::from_utf8_lossy(&after.text).into_owned();
    println!("log: key {}", text.contains("system time"));
    let all = host::read_console(xen, 65536, None, true)?;
    let cleared = host::read_console(xen, 65536, None, false)?;
    println!(
        "log: cleared {}",
        !all.text.is_empty() && cleared.text.is_empty()
    );
    Ok(())
}

fn machine(xen: &Privcmd) -> Result<(), Box<dyn Error>> {
    let info = host::physinfo(xen)?;
    let topology = host::cpu_topology(xen, info.max_cpu_id + 1)?;
    println!(
        "topology: {} CPUs, last {:?}",
        topology.len(),
        topology.last()
    );
    Ok(())
}

/// All that is free can be claimed once, and is told; a second build gets none.
fn claims(xen: &Privcmd, domid: u16) -> Result<(), Box<dyn Error>> {
    let now = domain::info(xen, domid)?
        .ok_or("no such domain")?
        .total_pages;
    let other = domain::create(xen, &domain::CreateDomain::default())?;
    let result = claim_twice(xen, domid, now, other);
    domain::destroy(xen, other)?;
    memory::claim_pages(xen, domid, 0)?;
    println!(
        "claims: {} then {}",
        result?,
        host::physinfo(xen)?.outstanding_pages
    );
    Ok(())
}

fn claim_twice(xen: &Privcmd, domid: u16, now: u64, other: u16) -> Result<String, Box<dyn Error>> {
    const LEFT: u64 = 100;
    let machine = host::physinfo(xen)?;
    let free = machine.free_pages + machine.scrub_pages;
    for id in [domid, other] {
        domain::set_max_memory(xen, id, (now + free) * 4)?;
    }
    memory::claim_pages(xen, domid, now + free - LEFT)?;
    let too_many = memory::claim_pages(xen, other, LEFT + 1).map_err(|error| error.raw_os_error());
    let populated = memory::populate_physmap(xen, other, &(0..2 * LEFT).collect::<Vec<_>>(), 0)?;
    let told = host::physinfo(xen)?.outstanding_pages == free - LEFT;
    Ok(format!(
        "{too_many:?}, told {told}, at most the rest {}",
        populated as u64 <= LEFT
    ))
}

/// A new domain's CPUID can be made to show less, not more, and that of one that has run not at all.
fn policy(xen: &Privcmd, running: u16) -> Result<(), Box<dyn Error>> {
    let id = domain::create(xen, &domain::CreateDomain::default())?;
    let result = change_policy(xen, id, running);
    domain::destroy(xen, id)?;
    println!("policy: {}", result?);
    Ok(())
}

fn change_policy(xen: &Privcmd, id: u16, running: u16) -> Result<String, Box<dyn Error>> {
    const SSE3: u32 = 1 << 0;
    const DEBUG_STORE: u32 = 1 << 2;
    let find = |leaves: &[domain::CpuidLeaf]| leaves.iter().find(|leaf| leaf.leaf == 1).copied();
    let all = domain::cpu_policy(xen, id)?;
    let old = find(&all).ok_or("no leaf 1")?;
    // All that is shown may be set as it is.
    domain::set_cpu_policy(xen, id, &all)?;
    let (mut less, mut more, mut vendor) = (old, old, all[0]);
    less.registers[2] &= !SSE3;
    more.registers[2] |= DEBUG_STORE;
    vendor.registers[1] ^= 1;
    let code = |result: std::io::Result<()>| result.map_err(|error| error.raw_os_error());
    domain::set_cpu_policy(xen, id, &[less])?;
    let now = find(&domain::cpu_policy(xen, id)?).ok_or("no leaf 1")?;
    Ok(format!(
        "less {}, more {:?}, vendor {:?}, running {:?}",
        old.registers[2] & SSE3 != 0 && now.registers[2] & SSE3 == 0,
        code(domain::set_cpu_policy(xen, id, &[more])),
        code(domain::set_cpu_policy(xen, id, &[vendor])),
        code(domain::set_cpu_policy(xen, running, &[less]))
    ))
}

/// What the hypervisor copies to a domain is what a mapping shows, before its vCPU has registers and in long mode; what cannot be
/// is refused, and nothing beyond it is touched.
fn copies(xen: &Privcmd, running: u16) -> Result<(), Box<dyn Error>> {
    let id = domain::create(xen, &domain::CreateDomain::default())?;
    let result = copies_to_new(xen, id);
    domain::destroy(xen, id)?;
    let code = |result: std::io::Result<Vec<u8>>| result.map_err(|error| error.raw_os_error());
    // The running one's image is mapped one to one.
    let mapping = Mapping::map_with(xen, running, &[0x1000])?;
    let mut bytes = [0; 64];
    mapping.read(0, &mut bytes)?;
    println!(
        "copies: {}, linear {}, unmapped {:?}, nobody {:?}, nothing {:?}",
        result?,
        code(guest_memory::read(xen, running, 0x100_0000, 64)) == Ok(bytes.to_vec()),
        code(guest_memory::read(xen, running, 1 << 46, 1)),
        code(guest_memory::read(xen, 0x7FEF, 0, 1)),
        code(guest_memory::read(xen, running, 1 << 46, 0)),
    );
    Ok(())
}

fn copies_to_new(xen: &Privcmd, id: u16) -> Result<String, Box<dyn Error>> {
    const PAGES: u64 = 512;
    domain::set_max_memory(xen, id, 4 * PAGES * 2)?;
    let gfns: Vec<u64> = (0..PAGES).collect();
    memory::populate_physmap(xen, id, &gfns, 0)?;
    // Above 4 GiB too: with paging off, addresses are physical ones of any size.
    memory::populate_physmap(xen, id, &[0x10_0000], 0)?;
    let size = usize::try_from(PAGES)? * 4096;
    let data: Vec<u8> = (0..size - 100).map(|at| (at / 7) as u8).collect();
    guest_memory::write(xen, id, 50, &data)?;
    guest_memory::write(xen, id, 0x1_0000_0FFF, &[0xA5])?;
    let mapping = Mapping::map_with(xen, id, &gfns)?;
    let mut seen = vec![0; size];
    mapping.read(0, &mut seen)?;
    let whole = seen[50..size - 50] == data
        && seen[..50]
            .iter()
            .chain(&seen[size - 50..])
            .all(|&byte| byte == 0);
    let back = guest_memory::read(xen, id, 50, data.len())? == data;
    let high = guest_memory::read(xen, id, 0x1_0000_0000, 4096)?[4095] == 0xA5;
    let beyond = guest_memory::write(xen, id, size as u64 - 1, &[1, 2]);
    Ok(format!(
        "whole {whole}, back {back}, high {high}, beyond {:?}",
        beyond.map_err(|error| error.raw_os_error())
    ))
}
