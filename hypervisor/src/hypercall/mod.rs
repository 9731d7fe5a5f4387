//! Hypercalls: one table, one way in and out.
//!
//! An operation gets the caller and five arguments, checks them and returns a value or an errno; the encoding into
//! registers, privilege, and the note about unknown numbers happen here.

pub mod arguments;
pub mod console;
mod cpu_policy;
mod domctl;
pub mod events;
pub mod grants;
mod guest_memory;
pub mod hvm;
mod hvm_context;
mod limits;
mod machine;
pub mod memory;
mod multicall;
pub mod page;
pub mod physdev;
pub mod platform;
mod pools;
pub mod sched;
mod scheduling;
mod settings;
mod sysctl;
pub mod vcpu;
pub mod version;

use core::sync::atomic::{AtomicU64, Ordering};

use oxen_abi::{Errno, numbers};
pub use oxen_core::hypercall::Arguments;
use oxen_core::hypercall::{Caller, Convention};

use self::arguments::Argument;
use crate::cpu;
use crate::vcpu::Running;
use crate::vcpu::exits::skip;
use crate::virt::Vcpu;

/// What an operation returns.
pub type Outcome = Result<u64, Errno>;

/// An operation.
type Handler<H> = fn(&mut Running<H>, &Arguments) -> Outcome;

/// An entry of the table.
struct Entry<H> {
    number: u64,
    name: &'static str,
    privileged: bool,
    handler: Handler<H>,
    /// In [`Table::ENTRIES`], for those who count.
    place: usize,
}

const fn entry<H>(number: u64, name: &'static str, handler: Handler<H>) -> Entry<H> {
    Entry {
        number,
        name,
        privileged: false,
        handler,
        place: 0,
    }
}

const fn privileged<H>(number: u64, name: &'static str, handler: Handler<H>) -> Entry<H> {
    Entry {
        number,
        name,
        privileged: true,
        handler,
        place: 0,
    }
}

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Numbers that Xen has (`public/xen.h`): 0 to 48, and seven for architectures.
const NUMBERS: usize = 56;

/// Hypercalls that we have.
pub const CALLS: usize = 15;

struct Table<H>(core::marker::PhantomData<H>);

impl<H: Vcpu> Table<H> {
    /// By number.
    const BY_NUMBER: &'static [Option<Entry<H>>; NUMBERS] = &{
        let mut table = [const { None }; NUMBERS];
        let mut index = 0;
        while index < Self::ENTRIES.len() {
            let entry = &Self::ENTRIES[index];
            table[entry.number as usize] = Some(Entry {
                place: index,
                ..*entry
            });
            index += 1;
        }
        table
    };

    const ENTRIES: &'static [Entry<H>; CALLS] = &[
        entry(
            numbers::EVENT_CHANNEL_OP,
            "event_channel_op",
            events::event_channel_op,
        ),
        entry(numbers::MULTICALL, "multicall", multicall::multicall),
        entry(numbers::VCPU_OP, "vcpu_op", vcpu::vcpu_op),
        entry(numbers::SCHED_OP, "sched_op", sched::sched_op),
        entry(numbers::XEN_VERSION, "xen_version", version::xen_version),
        entry(numbers::MEMORY_OP, "memory_op", memory::memory_op),
        entry(
            numbers::GRANT_TABLE_OP,
            "grant_table_op",
            grants::grant_table_op,
        ),
        entry(numbers::HVM_OP, "hvm_op", hvm::hvm_op),
        entry(numbers::SET_TIMER_OP, "set_timer_op", vcpu::set_timer_op),
        entry(numbers::VM_ASSIST, "vm_assist", vcpu::vm_assist),
        privileged(numbers::CONSOLE_IO, "console_io", console::console_io),
        privileged(numbers::PHYSDEV_OP, "physdev_op", physdev::physdev_op),
        privileged(numbers::PLATFORM_OP, "platform_op", platform::platform_op),
        privileged(numbers::DOMCTL, "domctl", domctl::domctl),
        privileged(numbers::SYSCTL, "sysctl", sysctl::sysctl),
    ];
}

/// Their names, in the order in which [`crate::vcpu::counters`] counts them.
pub fn names() -> impl Iterator<Item = &'static str> {
    // The table is the same for all machines.
    Table::<crate::virt::vmx::VmxVcpu>::ENTRIES
        .iter()
        .map(|entry| entry.name)
}

/// Handles the vendor's own hypercall instruction.
pub fn handle<H: Vcpu>(vcpu: &mut Running<H>) {
    if run(vcpu) == Done::Yes {
        skip(vcpu);
    }
}

/// Sets an argument, for a call that goes on where it is.
fn set_argument<H: Vcpu>(vcpu: &mut Running<H>, index: usize, value: u64) {
    let convention = Convention::of(vcpu.is_64_bit());
    convention.set_argument(&mut vcpu.gprs.0, index, value);
}

/// Handles the other vendor's instruction, of `length` bytes.
pub fn handle_with_length<H: Vcpu>(vcpu: &mut Running<H>, length: u8) {
    if run(vcpu) == Done::Yes {
        vcpu.hardware.skip(length);
    }
}

/// Whether a call is over, or is to be made again from where its registers are now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

fn run<H: Vcpu>(vcpu: &mut Running<H>) -> Done {
    let convention = Convention::of(vcpu.is_64_bit());
    let number = convention.number(&vcpu.gprs.0);
    let arguments = convention.arguments(&vcpu.gprs.0);
    let result = if vcpu.hardware.cpl() == 0 {
        dispatch(vcpu, number, &arguments)
    } else {
        Err(Errno::Perm)
    };
    if result == Err(Errno::Restart) {
        return Done::No;
    }
    convention.set_result(&mut vcpu.gprs.0, result);
    Done::Yes
}

fn dispatch<H: Vcpu>(vcpu: &mut Running<H>, number: u64, arguments: &Arguments) -> Outcome {
    let known = usize::try_from(number)
        .ok()
        .and_then(|number| Table::<H>::BY_NUMBER.get(number));
    let Some(Some(entry)) = known else {
        return unknown_operation(&UNKNOWN, "hypercall", number);
    };
    if entry.privileged && !vcpu.domain.privileged {
        return Err(Errno::Perm);
    }
    vcpu.shared().counters.call(entry.place);
    let here = cpu::current();
    here.is_asked.store(true, Ordering::Relaxed);
    let result = (entry.handler)(vcpu, arguments);
    here.is_asked.store(false, Ordering::Relaxed);
    if let Err(error) = result {
        log::debug!(
            "domain {} vcpu {}: {}({:#x}, {:#x}, …): {error:?}",
            vcpu.domain.id,
            vcpu.shared().id,
            entry.name,
            arguments[0],
            arguments[1]
        );
    }
    result
}

/// The handler for a structure that begins with a command and the version of its interface (`domctl`, `sysctl`).
///
/// # Errors
/// `Access` for another version, `NoSys` for a command that is not in the table.
fn versioned_handler<T: Copy, const N: usize>(
    header: &Argument<N>,
    version: u32,
    handlers: &[(u32, T)],
    seen: &AtomicU64,
    name: &str,
) -> Result<T, Errno> {
    if header.u32(4) != version {
        return Err(Errno::Access);
    }
    let command = header.u32(0);
    match handlers.iter().find(|(known, _)| *known == command) {
        Some(&(_, handler)) => Ok(handler),
        None => unknown_operation(seen, name, command.into()),
    }
}

/// Says once for each number, of a hypercall or of an operation of the named one, that we do not have it.
fn unknown_operation<T>(seen: &AtomicU64, name: &str, command: u64) -> Result<T, Errno> {
    let bit = 1 << command.min(63);
    if seen.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        log::info!("{name} {command} is not known: -ENOSYS");
    }
    Err(Errno::NoSys)
}
