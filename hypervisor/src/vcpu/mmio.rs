//! Guest-physical accesses without a mapping: emulated device registers, device memory mapped on demand, holes.

use arrayvec::ArrayVec;
use oxen_core::address::{Gfn, GuestLinear, GuestPhys, PAGE_SIZE};
use oxen_core::apic::local;
use oxen_core::emulate::{self, CodeSize, Operation};
use oxen_core::memory::p2m::Kind;

use super::exits::{register, set_register, skip};
use super::{Running, interrupts};
use crate::domain::crash;
use crate::memory::guest;
use crate::platform::mmio as devices;
use crate::virt::{NestedFault, SegmentName, Vcpu};

/// Longest x86 instruction.
const LONGEST: usize = 15;

/// Bytes of an instruction.
pub type Code = ArrayVec<u8, LONGEST>;

/// Handles a nested fault: the access is emulated, or mapped and repeated.
pub fn handle<H: Vcpu>(vcpu: &mut Running<H>, fault: NestedFault) {
    let frame = fault.address.frame();
    let is_apic = fault.address.0 & !(PAGE_SIZE as u64 - 1) == local::BASE_ADDRESS;
    if !is_apic && devices::map_on_demand(&vcpu.domain, frame) {
        return;
    }
    if fault.write && is_granted_for_reading(vcpu, frame) {
        log::debug!(
            "domain {} vcpu {} writes to {}, which it was granted for reading",
            vcpu.domain.id,
            vcpu.shared().id,
            fault.address
        );
        vcpu.general_protection();
        return;
    }
    if fault.execute {
        // A guest can do this as often as it likes.
        log::debug!(
            "domain {} vcpu {} runs at {}, where there is no memory",
            vcpu.domain.id,
            vcpu.shared().id,
            fault.address
        );
        vcpu.general_protection();
        return;
    }
    emulate_access(vcpu, fault);
}

fn is_granted_for_reading<H: Vcpu>(vcpu: &Running<H>, frame: Gfn) -> bool {
    let mapping = vcpu.domain.p2m.lock().lookup(frame);
    mapping.is_some_and(|mapping| mapping.kind == Kind::GrantReadOnly)
}

fn emulate_access<H: Vcpu>(vcpu: &mut Running<H>, fault: NestedFault) {
    let Some((bytes, mode)) = fetch(vcpu) else {
        // The instruction's own page is gone: the guest finds out by itself when it runs again.
        return;
    };
    let instruction = match emulate::decode(&bytes, mode) {
        Ok(instruction) => instruction,
        Err(error) => {
            crash::not_emulated(vcpu, fault.address, &bytes, error);
            return;
        }
    };
    match instruction.operation {
        Operation::String(kind) => string(vcpu, fault.address, &instruction, kind),
        _ => single(vcpu, fault.address, &instruction),
    }
}

/// MOV-like and arithmetic forms: at most one read, one computation, one write.
fn single<H: Vcpu>(
    vcpu: &mut Running<H>,
    address: GuestPhys,
    instruction: &emulate::MmioInstruction,
) {
    let width = instruction.width;
    let memory = if instruction.reads_memory() {
        read_device(vcpu, address, width)
    } else {
        0
    };
    let operand = instruction
        .source_register()
        .map_or(0, |index| register(vcpu, usize::from(index)));
    let outcome = instruction.execute(memory, operand, vcpu.hardware.rflags());
    if let Some(value) = outcome.memory {
        write_device(vcpu, address, width, value);
    }
    if let Some((index, value)) = outcome.register {
        set_register(vcpu, usize::from(index), value);
    }
    if let Some(flags) = outcome.rflags {
        vcpu.hardware.set_rflags(flags);
    }
    vcpu.hardware.skip(instruction.length);
}

/// One element of MOVS or STOS between RAM and a device.
fn string<H: Vcpu>(
    vcpu: &mut Running<H>,
    address: GuestPhys,
    instruction: &emulate::MmioInstruction,
    kind: emulate::StringKind,
) {
    const RAX: usize = 0;
    const RCX: usize = 1;
    const RSI: usize = 6;
    const RDI: usize = 7;
    const DIRECTION: u64 = 1 << 10;
    let mask = instruction.address_mask;
    let count = register(vcpu, RCX) & mask;
    if instruction.repeat && count == 0 {
        skip(vcpu);
        return;
    }
    let width = instruction.width;
    let to = linear(vcpu, SegmentName::Es, register(vcpu, RDI) & mask);
    let result = match kind {
        emulate::StringKind::Store => {
            write_device(vcpu, address, width, register(vcpu, RAX));
            Ok(())
        }
        emulate::StringKind::Move => {
            let from = linear(vcpu, SegmentName::Ds, register(vcpu, RSI) & mask);
            move_element(vcpu, address, from, to, width)
        }
    };
    if let Err(fault) = result {
        guest::raise_page_fault(vcpu, fault);
        return;
    }
    let step = if vcpu.hardware.rflags() & DIRECTION == 0 {
        u64::from(width)
    } else {
        u64::from(width).wrapping_neg()
    };
    let advance = |vcpu: &mut Running<H>, index: usize| {
        let old = register(vcpu, index);
        set_register(vcpu, index, old & !mask | old.wrapping_add(step) & mask);
    };
    advance(vcpu, RDI);
    if kind == emulate::StringKind::Move {
        advance(vcpu, RSI);
    }
    if instruction.repeat {
        let old = register(vcpu, RCX);
        set_register(vcpu, RCX, old & !mask | (count - 1) & mask);
        if count > 1 {
            return;
        }
    }
    vcpu.hardware.skip(instruction.length);
}

/// Which side of a MOVS is the device: the one whose translation is the faulting address.
fn move_element<H: Vcpu>(
    vcpu: &mut Running<H>,
    address: GuestPhys,
    from: GuestLinear,
    to: GuestLinear,
    width: u8,
) -> Result<(), guest::Fault> {
    let mut data = [0; 8];
    let part = usize::from(width.min(8));
    let source = guest::translate(vcpu, from, oxen_core::memory::walk::Access::SUPERVISOR_READ)?;
    if source == address {
        data = read_device(vcpu, address, width).to_le_bytes();
        guest::write(vcpu, to, &data[..part])
    } else {
        guest::read(vcpu, from, &mut data[..part])?;
        write_device(vcpu, address, width, u64::from_le_bytes(data));
        Ok(())
    }
}

fn linear<H: Vcpu>(vcpu: &Running<H>, segment: SegmentName, offset: u64) -> GuestLinear {
    const EFER_LMA: u64 = 1 << 10;
    let flat = vcpu.hardware.system().efer & EFER_LMA != 0;
    let base = if flat {
        0
    } else {
        vcpu.hardware.segment(segment).base
    };
    GuestLinear(base.wrapping_add(offset))
}

fn read_device<H: Vcpu>(vcpu: &mut Running<H>, address: GuestPhys, width: u8) -> u64 {
    if address.0 & !0xFFF == local::BASE_ADDRESS {
        let register = u64::from(vcpu.apic.read_mmio(address.page_offset() as u32 & 0xFF0));
        return register >> (8 * (address.0 & 3));
    }
    devices::read(&vcpu.domain, address, width)
}

fn write_device<H: Vcpu>(vcpu: &mut Running<H>, address: GuestPhys, width: u8, value: u64) {
    if address.0 & !0xFFF == local::BASE_ADDRESS {
        let effect = vcpu
            .apic
            .write_mmio(address.page_offset() as u32 & 0xFF0, value as u32);
        interrupts::apply(vcpu, effect);
        return;
    }
    devices::write(&vcpu.domain, address, width, value);
}

/// The bytes of the instruction at RIP, and how the CPU reads them. Raises the fault in the guest and returns `None` if
/// they cannot be read.
pub fn fetch<H: Vcpu>(vcpu: &mut Running<H>) -> Option<(Code, CodeSize)> {
    let (mode, start) = place(vcpu);
    let mut bytes = [0; LONGEST];
    if guest::fetch(vcpu, start, &mut bytes).is_ok() {
        return Some((Code::from(bytes), mode));
    }
    // The instruction may end before the next page, which need not be there.
    let here = (PAGE_SIZE - (start.0 as usize & (PAGE_SIZE - 1))).min(LONGEST);
    match guest::fetch(vcpu, start, &mut bytes[..here]) {
        Ok(()) => Some((bytes[..here].iter().copied().collect(), mode)),
        Err(fault) => {
            guest::raise_page_fault(vcpu, fault);
            None
        }
    }
}

/// Where the instruction at RIP is, and how the CPU reads it.
fn place<H: Vcpu>(vcpu: &Running<H>) -> (CodeSize, GuestLinear) {
    const DEFAULT_BIG: u32 = 1 << 14;
    let (mode, base) = if vcpu.hardware.in_64_bit_mode() {
        (CodeSize::Bits64, 0)
    } else {
        let code = vcpu.hardware.segment(SegmentName::Cs);
        if code.attributes & DEFAULT_BIG != 0 {
            (CodeSize::Bits32, code.base)
        } else {
            (CodeSize::Bits16, code.base)
        }
    };
    (mode, GuestLinear(base.wrapping_add(vcpu.hardware.rip())))
}

/// Whether the instruction at RIP is a HLT, without a prefix, that the guest may execute.
pub fn is_at_halt<H: Vcpu>(vcpu: &Running<H>) -> bool {
    const HLT: [u8; 1] = [0xF4];
    let mut byte = [0];
    vcpu.hardware.cpl() == 0 && guest::fetch(vcpu, place(vcpu).1, &mut byte).is_ok() && byte == HLT
}
