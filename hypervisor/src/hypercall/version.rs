//! `xen_version`.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::version::{CAPABILITIES, VERSION, cmd, feature};

use oxen_core::hypercall::Caller;

use super::arguments::{Argument, write_bytes};
use super::{Arguments, Outcome, unknown_operation};
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn xen_version<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, argument, ..]: &Arguments,
) -> Outcome {
    match command {
        cmd::VERSION => Ok(VERSION.into()),
        cmd::EXTRA_VERSION => text::<H, 16>(
            vcpu,
            argument,
            concat!(".0-oxen-", env!("CARGO_PKG_VERSION")),
        ),
        cmd::COMPILE_INFO => compile_info(vcpu, argument),
        cmd::CAPABILITIES => text::<H, 1024>(vcpu, argument, CAPABILITIES),
        cmd::CHANGESET => text::<H, 64>(vcpu, argument, env!("CARGO_PKG_VERSION")),
        cmd::PLATFORM_PARAMETERS => {
            // Where Xen is in a PV guest's address space: 32-bit HVM guests are told 0.
            if vcpu.is_64_bit() {
                write_bytes(vcpu, argument, &0xFFFF_8000_0000_0000u64.to_le_bytes())?;
            } else {
                write_bytes(vcpu, argument, &0u32.to_le_bytes())?;
            }
            Ok(0)
        }
        cmd::GET_FEATURES => get_features(vcpu, argument),
        cmd::PAGE_SIZE if argument == 0 => Ok(4096),
        cmd::PAGE_SIZE => Err(Errno::Inval),
        cmd::GUEST_HANDLE => {
            write_bytes(vcpu, argument, &[0; 16])?;
            Ok(0)
        }
        cmd::COMMAND_LINE => {
            // Not every guest's business (Xen says the same word).
            let line = if vcpu.domain.privileged {
                crate::command_line()
            } else {
                "<denied>"
            };
            text::<H, 1024>(vcpu, argument, line)
        }
        // The image has none.
        cmd::BUILD_ID => Err(Errno::NoData),
        _ => unknown_operation(&UNKNOWN, "xen_version", command),
    }
}

fn get_features<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut info = Argument::<8>::read(vcpu, pointer)?;
    if info.u32(0) != 0 {
        return Err(Errno::Inval);
    }
    let mut features = feature::WRITABLE_PAGE_TABLES
        | feature::AUTO_TRANSLATED_PHYSMAP
        | feature::HVM_CALLBACK_VECTOR
        | feature::HVM_SAFE_PVCLOCK
        | feature::MEMORY_OP_VNODE;
    features |= if vcpu.domain.privileged {
        feature::DOM0 | feature::DIRECT_MAPPED
    } else {
        feature::NOT_DIRECT_MAPPED
    };
    info.set_u32(4, features);
    info.write(vcpu, pointer)?;
    Ok(0)
}

/// Compiler 64 bytes, by 16, domain 32, date 32.
fn compile_info<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut bytes = [0; 144];
    for (offset, size, value) in [
        (0, 64, "rustc"),
        (64, 16, "oxen"),
        (80, 32, ""),
        (112, 32, ""),
    ] {
        let length = value.len().min(size - 1);
        bytes[offset..offset + length].copy_from_slice(&value.as_bytes()[..length]);
    }
    write_bytes(vcpu, pointer, &bytes)?;
    Ok(0)
}

/// A zero-terminated string in a field of N bytes.
fn text<H: Vcpu, const N: usize>(vcpu: &Running<H>, pointer: u64, value: &str) -> Outcome {
    let mut bytes = [0; N];
    let length = value.len().min(N - 1);
    bytes[..length].copy_from_slice(&value.as_bytes()[..length]);
    write_bytes(vcpu, pointer, &bytes)?;
    Ok(0)
}
