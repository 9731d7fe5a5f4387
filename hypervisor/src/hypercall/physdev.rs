//! `physdev_op`: what the control domain tells about its devices.

use core::sync::atomic::AtomicU64;

use oxen_abi::physdev::cmd;

use super::arguments::Argument;
use super::{Arguments, Outcome, unknown_operation};
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn physdev_op<H: Vcpu>(vcpu: &mut Running<H>, &[command, pointer, ..]: &Arguments) -> Outcome {
    match command {
        // The control domain owns every device there is; its reports are for the log.
        cmd::PCI_DEVICE_ADD => {
            let device = Argument::<12>::read(vcpu, pointer)?;
            let (segment, bus_and_function) = (device.u16(0), device.u16(2));
            let (bus, function) = (bus_and_function & 0xFF, bus_and_function >> 8);
            log::debug!(
                "PCI device {segment:04x}:{bus:02x}:{:02x}.{}",
                function >> 3,
                function & 7
            );
            Ok(0)
        }
        cmd::PCI_DEVICE_REMOVE => {
            Argument::<4>::read(vcpu, pointer)?;
            Ok(0)
        }
        cmd::PCI_MMCFG_RESERVED => {
            let range = Argument::<16>::read(vcpu, pointer)?;
            log::debug!("PCI configuration space at {:#x} is reserved", range.u64(0));
            Ok(0)
        }
        _ => unknown_operation(&UNKNOWN, "physdev_op", command),
    }
}
