//! Port accesses that are intercepted.

use oxen_core::address::GuestLinear;

use super::exits::skip;
use super::{Running, mmio};
use crate::memory::guest;
use crate::platform::ports;
use crate::virt::{Gprs, PortAccess, SegmentName, Vcpu};

/// Handles IN, OUT, INS and OUTS.
pub fn handle<H: Vcpu>(vcpu: &mut Running<H>, access: PortAccess) {
    if access.string {
        string(vcpu, access);
        return;
    }
    let mask = width_mask(access.width);
    if access.input {
        let value = u64::from(ports::read(&vcpu.domain, access.port, access.width)) & mask;
        let old = vcpu.gprs.0[Gprs::RAX];
        // A 32-bit result clears the upper half, narrower ones leave the rest.
        vcpu.gprs.0[Gprs::RAX] = if access.width == 4 {
            value
        } else {
            old & !mask | value
        };
    } else {
        let value = (vcpu.gprs.0[Gprs::RAX] & mask) as u32;
        ports::write(&vcpu.domain, access.port, access.width, value);
    }
    if (1..=15).contains(&access.length) {
        vcpu.hardware.skip(access.length);
    } else {
        skip(vcpu);
    }
}

/// One element of INS or OUTS; a repeated one exits again for the next.
fn string<H: Vcpu>(vcpu: &mut Running<H>, access: PortAccess) {
    const DIRECTION: u64 = 1 << 10;
    let Some((bytes, mode)) = mmio::fetch(vcpu) else {
        return;
    };
    let address_mask = oxen_core::emulate::address_mask(&bytes, mode);
    let count = vcpu.gprs.0[Gprs::RCX] & address_mask;
    if access.repeat && count == 0 {
        skip(vcpu);
        return;
    }
    let register = if access.input { Gprs::RDI } else { Gprs::RSI };
    let segment = vcpu.hardware.segment(if access.input {
        SegmentName::Es
    } else {
        SegmentName::Ds
    });
    let offset = vcpu.gprs.0[register] & address_mask;
    let address = GuestLinear(segment.base.wrapping_add(offset));
    let mut data = [0; 4];
    let part = &mut data[..usize::from(access.width.min(4))];
    let result = if access.input {
        let value = ports::read(&vcpu.domain, access.port, access.width).to_le_bytes();
        part.copy_from_slice(&value[..part.len()]);
        guest::write(vcpu, address, part)
    } else {
        guest::read(vcpu, address, part).map(|()| {
            ports::write(
                &vcpu.domain,
                access.port,
                access.width,
                u32::from_le_bytes(data),
            );
        })
    };
    if let Err(fault) = result {
        guest::raise_page_fault(vcpu, fault);
        return;
    }
    let step = u64::from(access.width);
    let next = if vcpu.hardware.rflags() & DIRECTION == 0 {
        offset.wrapping_add(step)
    } else {
        offset.wrapping_sub(step)
    };
    vcpu.gprs.0[register] = vcpu.gprs.0[register] & !address_mask | next & address_mask;
    if access.repeat {
        let left = count - 1;
        vcpu.gprs.0[Gprs::RCX] = vcpu.gprs.0[Gprs::RCX] & !address_mask | left;
        if left != 0 {
            return;
        }
    }
    skip(vcpu);
}

const fn width_mask(width: u8) -> u64 {
    match width {
        1 => 0xFF,
        2 => 0xFFFF,
        _ => 0xFFFF_FFFF,
    }
}
