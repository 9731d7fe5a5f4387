//! `platform_op`: the machine, for the control domain.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::platform::{
    BODY, INTERFACE_VERSION, PCPU_INVALID, PCPU_ONLINE, VIDEO_TYPE_TEXT, VIDEO_TYPE_VESA, cmd,
};
use oxen_core::id::CpuId;
use oxen_core::time::NANOS_PER_SECOND;

use super::arguments::{Argument, write_bytes};
use super::{Arguments, Outcome, unknown_operation};
use crate::cpu;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command in the structure's first word.
pub fn platform_op<H: Vcpu>(vcpu: &mut Running<H>, &[pointer, ..]: &Arguments) -> Outcome {
    let header = Argument::<8>::read(vcpu, pointer)?;
    if header.u32(4) != INTERFACE_VERSION {
        return Err(Errno::Access);
    }
    let body = pointer.wrapping_add(BODY);
    match header.u32(0) {
        cmd::SETTIME64 => {
            let argument = Argument::<24>::read(vcpu, body)?;
            if argument.u32(12) != 0 {
                return Err(Errno::Inval);
            }
            set_time(vcpu, argument.u64(0), argument.u32(8), argument.u64(16))
        }
        cmd::SETTIME32 => {
            let argument = Argument::<16>::read(vcpu, body)?;
            set_time(
                vcpu,
                argument.u32(0).into(),
                argument.u32(4),
                argument.u64(8),
            )
        }
        cmd::GET_CPUINFO => cpu_info(vcpu, body),
        cmd::GET_DOM0_CONSOLE => dom0_console(vcpu, body),
        // No EFI services are offered.
        cmd::FIRMWARE_INFO => Err(Errno::NoSys),
        command => unknown_operation(&UNKNOWN, "platform_op", command.into()),
    }
}

fn set_time<H: Vcpu>(vcpu: &Running<H>, seconds: u64, nanos: u32, system_time: u64) -> Outcome {
    let now = seconds
        .checked_mul(NANOS_PER_SECOND)
        .and_then(|s| s.checked_add(nanos.into()));
    let at_zero = now
        .and_then(|now| now.checked_sub(system_time))
        .ok_or(Errno::Inval)?;
    time::set_utc_at_zero(at_zero);
    vcpu.domain.publish_wallclock();
    Ok(0)
}

/// The screen that the loader set up, handed over as `dom0_vga_console_info`; the result is the number of bytes.
fn dom0_console<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    const SIZE: usize = 40;
    let screen = crate::screen().ok_or(Errno::NoDev)?;
    let mut bytes = [0; SIZE];
    let mut put =
        |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    let (width, height) = (screen.width as u16, screen.height as u16);
    match screen.fields {
        None => {
            put(0, &[VIDEO_TYPE_TEXT]);
            put(4, &16u16.to_le_bytes());
            put(10, &height.to_le_bytes());
            put(12, &width.to_le_bytes());
        }
        Some(fields) => {
            let size = u64::from(screen.pitch) * u64::from(screen.height);
            put(0, &[VIDEO_TYPE_VESA]);
            put(4, &width.to_le_bytes());
            put(6, &height.to_le_bytes());
            put(8, &(screen.pitch as u16).to_le_bytes());
            put(10, &u16::from(screen.bits).to_le_bytes());
            put(12, &(screen.address.0 as u32).to_le_bytes());
            // In units of 64 KiB.
            put(16, &(size.div_ceil(1 << 16) as u32).to_le_bytes());
            for (slot, (position, length)) in fields.into_iter().enumerate() {
                put(20 + 2 * slot, &[position, length]);
            }
            put(36, &((screen.address.0 >> 32) as u32).to_le_bytes());
        }
    }
    write_bytes(vcpu, body, &bytes)?;
    Ok(SIZE as u64)
}

fn cpu_info<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<20>::read(vcpu, body)?;
    let last = cpu::percpu::all().count().saturating_sub(1) as u32;
    argument.set_u32(4, last);
    let found = u16::try_from(argument.u32(0))
        .ok()
        .and_then(|id| cpu::percpu::by_id(CpuId(id)));
    match found {
        Some(cpu) => {
            argument.set_u32(8, PCPU_ONLINE);
            argument.set_u32(12, cpu.apic_id());
            argument.set_u32(16, cpu.id().0.into());
        }
        None => argument.set_u32(8, PCPU_INVALID),
    }
    argument.write(vcpu, body).map(|()| 0)
}
