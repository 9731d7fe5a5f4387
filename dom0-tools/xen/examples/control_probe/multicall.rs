//! Hypercalls in a list.

use std::error::Error;

use oxen_abi::{Errno, memory, numbers, version};
use oxen_xen::domain;
use oxen_xen::privcmd::Privcmd;

/// Pages that take longer to give than one call may last.
const PAGES: u64 = 4000;

/// Each call has its own result, a long one in the middle is made to its end, and a list in a list is refused.
pub fn check(xen: &Privcmd) -> Result<(), Box<dyn Error>> {
    let id = domain::create(xen, &domain::CreateDomain::default())?;
    let results = make(xen, id);
    let had = domain::info(xen, id)?.map(|info| info.total_pages);
    domain::destroy(xen, id)?;
    let results = results?;
    let version = i64::from(version::VERSION);
    let error = |errno: Errno| -i64::from(errno as i32);
    let wanted = [
        version,
        error(Errno::NoSys),
        PAGES.cast_signed(),
        error(Errno::Inval),
        version,
    ];
    println!(
        "multicall: {}, {} pages",
        if results == wanted {
            "each as alone".to_owned()
        } else {
            format!("{results:?}, not {wanted:?}")
        },
        had.unwrap_or(0)
    );
    Ok(())
}

fn make(xen: &Privcmd, id: u16) -> Result<Vec<i64>, Box<dyn Error>> {
    const UNKNOWN: u64 = 63;
    const WORDS: usize = numbers::multicall::SIZE / 8;
    const RESULT: usize = numbers::multicall::RESULT / 8;
    domain::set_max_memory(xen, id, PAGES * 4)?;
    let frames = xen.buffer_of(&(0..PAGES).collect::<Vec<u64>>())?;
    // Extents, their number, order and flags, domain.
    let reservation = xen.buffer_of(&[frames.address(), PAGES, 0, u64::from(id)])?;
    let calls = [
        (numbers::XEN_VERSION, version::cmd::VERSION, 0),
        (numbers::XEN_VERSION, UNKNOWN, 0),
        (
            numbers::MEMORY_OP,
            memory::cmd::POPULATE_PHYSMAP,
            reservation.address(),
        ),
        (numbers::MULTICALL, 0, 0),
        (numbers::XEN_VERSION, version::cmd::VERSION, 0),
    ];
    let words: Vec<u64> = calls
        .into_iter()
        .flat_map(|(number, first, second)| [number, 0, first, second, 0, 0, 0, 0])
        .collect();
    let list = xen.buffer_of(&words)?;
    let count = calls.len() as u64;
    let result = xen.hypercall(numbers::MULTICALL, [list.address(), count, 0, 0, 0])?;
    if result != 0 {
        return Err(format!("multicall: {result}").into());
    }
    Ok((0..calls.len())
        .map(|index| list.read::<u64>(8 * (index * WORDS + RESULT)).cast_signed())
        .collect())
}
