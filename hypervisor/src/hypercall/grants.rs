//! `grant_table_op`: the table's size and version. Mapping and copying come with other domains.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::grant::{DEFAULT_MAX_FRAMES, STATUS_BAD_DOMAIN, STATUS_OKAY, cmd};

use super::arguments::{Argument, own_domain};
use super::{Arguments, Outcome, unknown_operation};
use crate::domain::Domain;
use crate::memory::HostPages;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);
/// Most elements in one call, so that it stays short.
const MOST: u64 = 64;

/// Dispatches on the command; `count` elements follow one another at `pointer`.
pub fn grant_table_op<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, pointer, count, ..]: &Arguments,
) -> Outcome {
    if count > MOST {
        return Err(Errno::Inval);
    }
    match command {
        cmd::QUERY_SIZE => each::<H, 16>(vcpu, pointer, count, query_size),
        cmd::SET_VERSION => each::<H, 4>(vcpu, pointer, count, set_version),
        cmd::GET_VERSION => each::<H, 8>(vcpu, pointer, count, |vcpu, argument| {
            own_domain(vcpu, argument.u16(0))?;
            argument.set_u32(4, 1);
            Ok(())
        }),
        _ => unknown_operation(&UNKNOWN, "grant_table_op", command),
    }
}

fn each<H: Vcpu, const N: usize>(
    vcpu: &Running<H>,
    pointer: u64,
    count: u64,
    operation: fn(&Running<H>, &mut Argument<N>) -> Result<(), Errno>,
) -> Outcome {
    for element in 0..count {
        let at = pointer.wrapping_add(element * N as u64);
        let mut argument = Argument::<N>::read(vcpu, at)?;
        operation(vcpu, &mut argument)?;
        argument.write(vcpu, at)?;
    }
    Ok(0)
}

fn query_size<H: Vcpu>(vcpu: &Running<H>, argument: &mut Argument<16>) -> Result<(), Errno> {
    let status = match own_domain(vcpu, argument.u16(0)) {
        Ok(()) => {
            argument.set_u32(4, vcpu.domain.grant_frames.lock().len() as u32);
            argument.set_u32(8, DEFAULT_MAX_FRAMES);
            STATUS_OKAY
        }
        Err(_) => STATUS_BAD_DOMAIN,
    };
    argument.set_u16(12, status as u16);
    Ok(())
}

fn set_version<H: Vcpu>(_: &Running<H>, argument: &mut Argument<4>) -> Result<(), Errno> {
    if argument.u32(0) == 1 {
        Ok(())
    } else {
        Err(Errno::NoSys)
    }
}

/// Most frames of a domain's table.
pub const MOST_FRAMES: u32 = DEFAULT_MAX_FRAMES;

/// Grows a domain's table so that it has frame `index`, and returns that frame.
///
/// # Errors
/// `Inval` beyond the table's limit, `NoMem`.
pub fn frame(domain: &Domain, index: u64) -> Result<oxen_core::address::Mfn, Errno> {
    if index >= MOST_FRAMES.into() {
        return Err(Errno::Inval);
    }
    let mut frames = domain.grant_frames.lock();
    while frames.len() as u64 <= index {
        frames.try_reserve(1).map_err(|_| Errno::NoMem)?;
        frames.push(HostPages::new_zeroed(1).ok_or(Errno::NoMem)?);
    }
    Ok(frames[index as usize].first())
}
