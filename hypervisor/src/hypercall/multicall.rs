//! `multicall`: a list of hypercalls in one.

use oxen_abi::Errno;
use oxen_abi::numbers::{self, multicall as entry};
use oxen_core::hypercall::{Arguments, Caller, Convention};

use super::arguments::{Argument, write_bytes};
use super::{Outcome, dispatch, set_argument};
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// How long a list is worked on before others have a turn, in microseconds.
const STRETCH: u64 = 500;

/// Makes the calls of a list in turn, and writes to each entry what came of it. Where a call is to be made again, or has the
/// vCPU wait, or time is over, the whole is made again with the rest of the list.
///
/// # Errors
/// `Fault` for an entry that cannot be read or written.
pub fn multicall<H: Vcpu>(vcpu: &mut Running<H>, &[list, count, ..]: &Arguments) -> Outcome {
    let end = time::ticks() + time::khz() * STRETCH / 1000;
    let size = if vcpu.is_64_bit() {
        entry::SIZE
    } else {
        entry::SIZE / 2
    };
    for index in 0..count {
        let place = list.wrapping_add(index.wrapping_mul(size as u64));
        let mut call = Argument::<{ entry::SIZE }>::read_either(vcpu, place, entry::NARROW)?;
        let result = make(vcpu, &mut call);
        let (next, left) = match result {
            Err(Errno::Restart) => {
                write_arguments(vcpu, &call, place)?;
                (place, count - index)
            }
            _ => {
                write_result(vcpu, place, result)?;
                let left = count - index - 1;
                let gives_way = !vcpu.may_run() || vcpu.yields || time::ticks() > end;
                if left == 0 || !gives_way {
                    continue;
                }
                (place.wrapping_add(size as u64), left)
            }
        };
        set_argument(vcpu, 0, next);
        set_argument(vcpu, 1, left);
        return Err(Errno::Restart);
    }
    Ok(0)
}

/// Makes one call as if its arguments were in the registers, where it leaves those that it goes on with.
fn make<H: Vcpu>(vcpu: &mut Running<H>, call: &mut Argument<{ entry::SIZE }>) -> Outcome {
    let number = call.u64(entry::OPERATION);
    if number == numbers::MULTICALL {
        return Err(Errno::Inval);
    }
    let arguments: Arguments = core::array::from_fn(|index| call.u64(entry::ARGUMENTS + 8 * index));
    let convention = Convention::of(vcpu.is_64_bit());
    let before = vcpu.gprs;
    for (index, value) in arguments.into_iter().enumerate() {
        convention.set_argument(&mut vcpu.gprs.0, index, value);
    }
    let result = dispatch(vcpu, number, &arguments);
    for (index, value) in convention.arguments(&vcpu.gprs.0).into_iter().enumerate() {
        call.set_u64(entry::ARGUMENTS + 8 * index, value);
    }
    vcpu.gprs = before;
    result
}

fn write_result<H: Vcpu>(vcpu: &Running<H>, place: u64, result: Outcome) -> Result<(), Errno> {
    write_words(vcpu, place, 1, &[result.unwrap_or_else(Errno::encode)])
}

fn write_arguments<H: Vcpu>(
    vcpu: &Running<H>,
    call: &Argument<{ entry::SIZE }>,
    place: u64,
) -> Result<(), Errno> {
    let values: Arguments = core::array::from_fn(|index| call.u64(entry::ARGUMENTS + 8 * index));
    write_words(vcpu, place, entry::ARGUMENTS / 8, &values)
}

/// Writes words of the caller's width, beginning with word `first` of the entry at `place`.
fn write_words<H: Vcpu>(
    vcpu: &Running<H>,
    place: u64,
    first: usize,
    values: &[u64],
) -> Result<(), Errno> {
    let width = if vcpu.is_64_bit() { 8 } else { 4 };
    for (index, value) in values.iter().enumerate() {
        let at = place.wrapping_add(((first + index) * width) as u64);
        write_bytes(vcpu, at, &value.to_le_bytes()[..width])?;
    }
    Ok(())
}
