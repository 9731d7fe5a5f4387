//! Event channels with the 2-level ABI and a vector callback, and the clock of the first vCPU.

use core::sync::atomic::{AtomicU64, Ordering};

use oxen_abi::{event_channel, hvm, memory, numbers, sched, vcpu};

use crate::cpu;
use crate::hypercall::{self, SELF};

/// Place of the first vCPU's clock in the shared page.
const TIME: usize = 32;
/// Vector of the callback.
pub const CALLBACK_VECTOR: u8 = 0xF3;

unsafe extern "C" {
    static mut shared_page: [u8; 4096];
}

fn shared(offset: usize) -> *mut u8 {
    (&raw mut shared_page).cast::<u8>().wrapping_add(offset)
}

/// Gives the calling vCPU its callback; the first one maps the shared page and asks for it.
pub fn init(vcpu: usize) {
    const INFO_SIZE: usize = 64;
    cpu::set_state(vcpu, shared(vcpu * INFO_SIZE) as u64);
    if vcpu != 0 {
        return;
    }
    // xen_add_to_physmap: domid and size, space 0, index 0, frame.
    let mut place = [SELF.into(), 0, shared(0) as u64 >> 12];
    let mapped = hypercall::memory_op(memory::cmd::ADD_TO_PHYSMAP, &mut place);
    let value = hvm::CALLBACK_TYPE_VECTOR << 56 | u64::from(CALLBACK_VECTOR);
    let parameter = [SELF.into(), value];
    // SAFETY: the argument is only read.
    let set = unsafe {
        hypercall::call(
            numbers::HVM_OP,
            hvm::cmd::SET_PARAM,
            parameter.as_ptr() as u64,
            0,
        )
    };
    assert!((mapped, set) == (0, 0), "no events: {mapped}, {set}");
}

/// A port for events to a vCPU.
pub fn bind_ipi(vcpu: u32) -> u32 {
    let mut argument = [vcpu, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::BIND_IPI, &mut argument);
    assert!(result == 0, "bind_ipi: {result}");
    argument[1]
}

/// A port that another domain may bind to.
pub fn new_port(domain: u16) -> u32 {
    // evtchn_alloc_unbound: domain, remote domain, port.
    let mut argument = [u32::from(SELF) | u32::from(domain) << 16, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::ALLOC_UNBOUND, &mut argument);
    assert!(result == 0, "alloc_unbound: {result}");
    argument[1]
}

/// A port for the first vCPU's timer.
pub fn bind_timer() -> u32 {
    let mut argument = [event_channel::Virq::TIMER.0, 0, 0];
    let result = hypercall::event_channel_op(event_channel::cmd::BIND_VIRQ, &mut argument);
    assert!(result == 0, "bind_virq: {result}");
    argument[2]
}

/// Sends an event.
#[inline]
pub fn send(mut port: u32) -> i64 {
    hypercall::event_channel_op(event_channel::cmd::SEND, &mut port)
}

/// Masks a port, one of the first 64, or opens it.
pub fn mask(port: u32, on: bool) {
    const MASK: usize = 2048 + 512;
    let word = shared(MASK).cast::<u64>();
    // SAFETY: the shared page's first mask word, which only this guest writes.
    unsafe {
        let old = word.read_volatile();
        let bit = 1 << (port & 63);
        word.write_volatile(if on { old | bit } else { old & !bit });
    }
}

/// Takes back one port's pending event, of the first 64 ports; whether there was one.
pub fn take(port: u32) -> bool {
    const PENDING: usize = 2048;
    let word = shared(PENDING).cast::<AtomicU64>();
    // SAFETY: the shared page's first pending word, which others touch atomically too.
    let word = unsafe { &*word };
    let bit = 1 << (port & 63);
    word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

/// Waits for one of the ports, masked or not, or until a system time in nanoseconds, where that is not 0.
pub fn poll(ports: &[u32], until: u64) -> i64 {
    // sched_poll: pointer to ports, their number, time.
    let argument = [ports.as_ptr() as u64, ports.len() as u64, until];
    hypercall::sched_op(sched::cmd::POLL, &argument)
}

/// Leaves the first vCPU's CPU to others for so many nanoseconds.
pub fn nap(nanos: u64) {
    let (until, _) = Clock::read(shared(TIME)).after(nanos);
    let result = poll(&[], until);
    assert!(result == 0, "poll: {result}");
}

/// Takes back all that is pending for the first vCPU.
pub fn forget() {
    const PENDING: usize = 2048;
    // SAFETY: words that the guest may clear at any time.
    unsafe {
        shared(0).write_volatile(0);
        shared(8).cast::<u64>().write_volatile(0);
        shared(PENDING).cast::<u64>().write_volatile(0);
    }
}

/// System time in nanoseconds.
pub fn system_time() -> u64 {
    Clock::read(shared(TIME)).after(0).0
}

/// Sets the first vCPU's one-shot timer `nanos` ahead; returns the TSC value that this is.
pub fn set_timer(nanos: u64) -> u64 {
    let (deadline, ticks) = Clock::read(shared(TIME)).after(nanos);
    let argument = [deadline, 0];
    let result = hypercall::vcpu_op(vcpu::cmd::SET_SINGLESHOT_TIMER, 0, &argument);
    assert!(result == 0, "set_singleshot_timer: {result}");
    ticks
}

/// Nanoseconds that so many TSC ticks are.
pub fn nanos(ticks: u64) -> u64 {
    Clock::read(shared(TIME)).nanos(ticks)
}

/// The clock as a `vcpu_time_info` shows it.
pub struct Clock {
    tsc: u64,
    system: u64,
    multiplier: u32,
    shift: i8,
}

impl Clock {
    /// Reads it where the hypervisor writes it: there are 32 bytes at `place`, 8-aligned.
    pub fn read(place: *const u8) -> Self {
        // SAFETY: inside the structure. The hypervisor does not change this clock once it runs.
        let word = |offset| unsafe { place.wrapping_add(offset).cast::<u64>().read_volatile() };
        let scale = word(24);
        Self {
            tsc: word(8),
            system: word(16),
            multiplier: scale as u32,
            shift: (scale >> 32) as u8 as i8,
        }
    }

    /// Nanoseconds that so many TSC ticks are.
    pub fn nanos(&self, ticks: u64) -> u64 {
        let ticks = shifted(ticks, self.shift);
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// System time `nanos` from now, and the TSC then.
    pub fn after(&self, nanos: u64) -> (u64, u64) {
        let now = cpu::ticks();
        let system = self.system + self.nanos(now - self.tsc);
        let ahead = ((u128::from(nanos) << 32) / u128::from(self.multiplier)) as u64;
        (system + nanos, now + shifted(ahead, -self.shift))
    }
}

fn shifted(value: u64, by: i8) -> u64 {
    if by >= 0 { value << by } else { value >> -by }
}
