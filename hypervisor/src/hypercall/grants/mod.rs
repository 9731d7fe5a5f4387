//! `grant_table_op` (`public/grant_table.h`): the operations that Xen has for translated domains. The others are for domains
//! that see the machine's frame numbers, or, like `dump_table`, for the machine's operator, who has the debug key `g`.
//!
//! A call works on an array. A long one is worked off in stretches: the call is made again with the rest of the array.

mod copy;
mod map;
mod table;

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::grant::{Status, cmd};
use oxen_core::id::DomainId;

use super::arguments::Argument;
use super::{Arguments, Outcome, set_argument, unknown_operation};
use crate::domain::{Domain, registry};
use crate::time::Stretch;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command; `count` elements follow one another at `pointer`.
pub fn grant_table_op<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, pointer, count, ..]: &Arguments,
) -> Outcome {
    let count = count as u32;
    if i32::try_from(count).is_err() {
        return Err(Errno::Inval);
    }
    let array = Array { pointer, count };
    match command {
        cmd::MAP_GRANT_REF => map::map(vcpu, &array),
        cmd::UNMAP_GRANT_REF => map::unmap(vcpu, &array),
        cmd::COPY => copy::copy(vcpu, &array),
        cmd::SETUP_TABLE => table::set_up(vcpu, &array),
        cmd::QUERY_SIZE => table::query_size(vcpu, &array),
        cmd::SET_VERSION => table::set_version(vcpu, &array),
        cmd::GET_VERSION => table::get_version(vcpu, &array),
        cmd::SWAP_GRANT_REF => table::swap(vcpu, &array),
        cmd::DUMP_TABLE
        | cmd::TRANSFER
        | cmd::UNMAP_AND_REPLACE
        | cmd::GET_STATUS_FRAMES
        | cmd::CACHE_FLUSH => Err(Errno::NoSys),
        _ => unknown_operation(&UNKNOWN, "grant_table_op", command),
    }
}

/// The elements of a call.
struct Array {
    pointer: u64,
    count: u32,
}

impl Array {
    /// Where element `index` of `size` bytes is.
    const fn at(&self, index: u32, size: usize) -> u64 {
        self.pointer.wrapping_add(index as u64 * size as u64)
    }

    /// Reads one.
    fn read<H: Vcpu, const N: usize>(
        &self,
        vcpu: &Running<H>,
        index: u32,
    ) -> Result<Argument<N>, Errno> {
        Argument::read(vcpu, self.at(index, N))
    }

    /// That the call goes on with element `index` of `size` bytes, after others have had a turn.
    fn go_on<H: Vcpu>(&self, vcpu: &mut Running<H>, index: u32, size: usize) -> Outcome {
        set_argument(vcpu, 1, self.at(index, size));
        set_argument(vcpu, 2, (self.count - index).into());
        Err(Errno::Restart)
    }
}

/// The domain whose table an argument names: the caller's own, or, for the control domain, any.
fn table_owner<H: Vcpu>(vcpu: &Running<H>, number: u16) -> Result<Arc<Domain>, Status> {
    let owner = domain(vcpu, number).ok_or(Status::BadDomain)?;
    if owner.id == vcpu.domain.id || vcpu.domain.privileged {
        Ok(owner)
    } else {
        Err(Status::PermissionDenied)
    }
}

/// The domain of that number, or the caller for `DOMID_SELF`.
fn domain<H: Vcpu>(vcpu: &Running<H>, number: u16) -> Option<Arc<Domain>> {
    match DomainId(number) {
        DomainId::SELF => Some(vcpu.domain.clone()),
        number => registry::get(number),
    }
}

fn encode(result: Result<(), Status>) -> u16 {
    result.map_or_else(Status::encode, |()| Status::Okay.encode())
}
