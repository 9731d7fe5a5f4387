//! `XEN_DOMCTL_gdbsx_guestmemio`: the control domain copies to a domain's memory or from it, any length in one call. Debuggers
//! use it, and the builder of domains, which it spares a mapping of each page.

use oxen_abi::Errno;
use oxen_abi::domctl::memory_io as abi;
use oxen_core::memory::transfer::Request;
use oxen_core::memory::walk::Paging;

use super::Outcome;
use super::arguments::Argument;
use super::hvm_context;
use crate::domain::Domain;
use crate::memory::guest;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// How long a call may go on before others have a turn, in microseconds.
const STRETCH: u64 = 500;
/// Bytes copied with both domains' maps locked.
const PIECE: u32 = 16 << 12;

/// Copies; addresses in the domain are translated as its vCPU 0 has it. A long copy is worked off in stretches: what is left
/// is written over what was asked for, and the call is made again.
///
/// # Errors
/// `Fault` if a part cannot be reached or the domain is being destroyed: what was before it is copied. `Restart` while the vCPU's
/// registers are looked up, and between stretches.
pub fn copy<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let mut argument = Argument::<{ abi::SIZE }>::read(vcpu, body)?;
    let mut request = Request::of(&argument);
    if request.length > 0 {
        let paging = first_vcpu(vcpu, domain)?;
        let end = time::ticks() + time::khz() * STRETCH / 1000;
        while request.length > 0 {
            let piece = Request {
                length: request.length.min(PIECE),
                ..request
            };
            if domain.life.is_dying() {
                return Err(Errno::Fault);
            }
            let done = guest::transfer(vcpu, domain, &paging, &piece) as u32;
            if done < piece.length {
                return Err(Errno::Fault);
            }
            request = request.rest(done);
            if request.length > 0 && time::ticks() > end {
                request.put(&mut argument);
                argument.write(vcpu, body)?;
                return Err(Errno::Restart);
            }
        }
    }
    argument.set_u32(abi::REMAIN, 0);
    argument.write(vcpu, body).map(|()| 0)
}

/// How vCPU 0 translates addresses now.
fn first_vcpu<H: Vcpu>(vcpu: &Running<H>, domain: &Domain) -> Result<Paging, Errno> {
    let first = domain.vcpus.first().ok_or(Errno::Fault)?;
    if core::ptr::eq(&**first, vcpu.shared()) {
        return Ok(guest::paging(vcpu));
    }
    // One that has not been given registers yet has paging off.
    if !first.is_initialised() {
        return Ok(Paging::default());
    }
    let saved = match hvm_context::take_state(domain, 0) {
        Err(Errno::Inval) => Err(Errno::Fault),
        taken => taken,
    }?;
    let registers = saved.cpu.ok_or(Errno::Restart)?.registers;
    Ok(Paging {
        cr0: registers.cr0,
        cr3: registers.cr3,
        cr4: registers.cr4,
        efer: registers.efer,
        rflags: registers.rflags,
    })
}
