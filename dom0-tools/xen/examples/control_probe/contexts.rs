//! A domain's state as records: told, changed and given back.

use std::error::Error;

use oxen_xen::domain;
use oxen_xen::privcmd::Privcmd;

/// Kinds of records: type, instance, length, payload.
const HEADER: u16 = 1;
const CPU: u16 = 2;
const LAPIC: u16 = 5;
const LAPIC_REGS: u16 = 6;
const MTRR: u16 = 14;
const CPU_XSAVE: u16 = 16;
const VMCE_VCPU: u16 = 18;
const TSC_ADJUST: u16 = 19;
const END: u16 = 0;
const DESCRIPTOR: usize = 8;

/// In a CPU record: RIP, CR0, CR3, DR0, EFER, the TSC.
const RIP: usize = 640;
const CR0: usize = 656;
const CR3: usize = 672;
const DR0: usize = 688;
const EFER: usize = 992;
const TSC: usize = 1008;
/// In a CPU_XSAVE record: what is there of the components, XMM3's lower half, bit 1 of the components for it.
const PRESENT: usize = 24 + 512;
const XMM3: usize = 24 + 160 + 3 * 16;
const SSE: u64 = 1 << 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the payload of the first record of a kind is.
fn find(context: &[u8], wanted: u16) -> Result<std::ops::Range<usize>> {
    let mut at = 0;
    while at + DESCRIPTOR <= context.len() {
        let kind = u16::from_le_bytes([context[at], context[at + 1]]);
        let length = u32::from_le_bytes(context[at + 4..at + 8].try_into()?) as usize;
        let payload = at + DESCRIPTOR..at + DESCRIPTOR + length;
        if kind == wanted {
            return Ok(payload);
        }
        at = payload.end;
    }
    Err(format!("no record {wanted}").into())
}

fn long(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes[at..at + 8].try_into()?))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A context without the time at which it was taken.
fn timeless(mut context: Vec<u8>) -> Result<Vec<u8>> {
    let cpu = find(&context, CPU)?;
    put(&mut context, cpu.start + TSC, 0);
    Ok(context)
}

/// All records are there, and the calls that tell one of them, or the registers in another form, say the same.
pub fn look(xen: &Privcmd, domid: u16) -> Result<()> {
    let bytes = domain::get_hvm_context(xen, domid)?;
    let mut kinds = Vec::new();
    let mut at = 0;
    while at + DESCRIPTOR <= bytes.len() {
        kinds.push(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into()?) as usize;
        at += DESCRIPTOR + length;
    }
    let cpu = &bytes[find(&bytes, CPU)?];
    println!(
        "registers: rip {:#x} cr0 {:#x} cr3 {:#x} efer {:#x}",
        long(cpu, RIP)?,
        long(cpu, CR0)?,
        long(cpu, CR3)?,
        long(cpu, EFER)?
    );
    let all = [
        HEADER, CPU, LAPIC, LAPIC_REGS, MTRR, CPU_XSAVE, VMCE_VCPU, TSC_ADJUST, END,
    ];
    println!("context: complete {}", kinds == all && at == bytes.len());
    let again = domain::get_hvm_context(xen, domid)?;
    println!(
        "context: the same again {}",
        timeless(bytes.clone())? == timeless(again)?
    );
    let mut agree = true;
    for kind in [CPU, LAPIC, LAPIC_REGS, MTRR, CPU_XSAVE] {
        let mut one = domain::get_hvm_context_partial(xen, domid, kind.into(), 0)?;
        let mut of_all = bytes[find(&bytes, kind)?].to_vec();
        if kind == CPU {
            put(&mut one, TSC, 0);
            put(&mut of_all, TSC, 0);
        }
        agree &= one == of_all;
    }
    let code = |result: std::io::Result<Vec<u8>>| result.map_err(|error| error.raw_os_error());
    println!(
        "context: one by one {agree}, {:?} {:?}",
        code(domain::get_hvm_context_partial(xen, domid, 3, 0)),
        code(domain::get_hvm_context_partial(xen, domid, CPU.into(), 9))
    );
    // The same registers where a PV guest has them: RIP, CR0, CR3; and flags for state and for a vCPU that is up.
    let other = domain::vcpu_context(xen, domid, 0)?;
    let same = [(648, RIP), (4984, CR0), (5008, CR3)]
        .into_iter()
        .all(|(at, place)| long(&other, at).ok() == long(cpu, place).ok());
    println!(
        "context: as a PV guest's {}, {:?}",
        same && long(&other, 512)? == 0x21,
        code(domain::vcpu_context(xen, domid, 9))
    );
    Ok(())
}

/// What is given is what is told afterwards; what no CPU could go on with is refused and changes nothing.
pub fn change(xen: &Privcmd, domid: u16) -> Result<()> {
    let before = domain::get_hvm_context(xen, domid)?;
    let (cpu, extended) = (find(&before, CPU)?, find(&before, CPU_XSAVE)?);
    let give = |bytes: &[u8]| {
        domain::set_hvm_context(xen, domid, bytes).map_err(|error| error.raw_os_error())
    };
    let mut refused = Vec::new();
    type Change<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;
    let changes: [Change; 6] = [
        Box::new(|bytes| put(bytes, cpu.start + RIP, 1 << 50)),
        Box::new(|bytes| put(bytes, cpu.start + CR0, 1 << 31)),
        Box::new(|bytes| put(bytes, cpu.start + EFER, 1 << 60)),
        Box::new(|bytes| put(bytes, extended.start + PRESENT, u64::MAX)),
        Box::new(|bytes| bytes[0] = 3),
        Box::new(|bytes| bytes.truncate(bytes.len() - 1)),
    ];
    for change in changes {
        let mut bad = before.clone();
        change(&mut bad);
        refused.push(give(&bad).err().flatten());
    }
    println!("context: refused {refused:?}");
    let unchanged = timeless(domain::get_hvm_context(xen, domid)?)? == timeless(before.clone())?;
    let mut other = before.clone();
    put(&mut other, cpu.start + DR0, 0x1234_5678);
    let present = long(&other, extended.start + PRESENT)? | SSE;
    put(&mut other, extended.start + PRESENT, present);
    put(&mut other, extended.start + XMM3, 0xABCD);
    let taken = give(&other);
    let now = domain::get_hvm_context(xen, domid)?;
    let is_taken =
        long(&now, cpu.start + DR0)? == 0x1234_5678 && long(&now, extended.start + XMM3)? == 0xABCD;
    let back = give(&before);
    let restored = timeless(domain::get_hvm_context(xen, domid)?)? == timeless(before)?;
    println!(
        "context: unchanged {unchanged}, taken {taken:?} {is_taken}, back {back:?} {restored}"
    );
    Ok(())
}
