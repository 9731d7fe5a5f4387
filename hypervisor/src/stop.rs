//! The ends of the machine: clean power-off, reboot, refusal to boot, and panic with a symbolised backtrace.
//!
//! Each ends with one line `STOP …` that names the cause, the hypervisor's last word on the console.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::boot::symbols;
use crate::console;
use crate::cpu;
use crate::interrupt::local_apic;
use crate::interrupt::table::Frame;
use crate::memory::layout;
use crate::platform::power;

/// Why the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// dom0 asked for power-off.
    PowerOff,
    /// dom0 asked for a reboot.
    Reboot,
    /// dom0 crashed.
    Crash,
    /// The hypervisor refuses to go on with its boot.
    Boot,
    /// A bug in the hypervisor, or broken hardware.
    Panic,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Crash => "crash",
            Self::Boot => "boot",
            Self::Panic => "panic",
        }
    }
}

static STOPPING: AtomicBool = AtomicBool::new(false);
static NO_REBOOT: AtomicBool = AtomicBool::new(false);
static PANICKING: AtomicBool = AtomicBool::new(false);
static ENDING: AtomicBool = AtomicBool::new(false);
static UP: AtomicBool = AtomicBool::new(false);

/// After a crash, panic or refusal: halt instead of resetting the machine (`noreboot`).
pub fn set_no_reboot(on: bool) {
    NO_REBOOT.store(on, Ordering::Relaxed);
}

/// Tells that per-CPU data and the local APIC are ready, so that other CPUs can be stopped.
pub fn set_up() {
    UP.store(true, Ordering::Release);
}

/// Ends the boot with a one-line cause that names the fix.
pub fn refuse_boot(cause: fmt::Arguments<'_>) -> ! {
    finish(Reason::Boot, cause)
}

/// Says the last line, and powers off, resets or halts.
pub fn finish(reason: Reason, cause: fmt::Arguments<'_>) -> ! {
    if ENDING.swap(true, Ordering::AcqRel) {
        halt();
    }
    stop_others();
    let text = cause.as_str();
    if text == Some("") {
        console::print(format_args!("STOP {}\n", reason.word()));
    } else {
        console::print(format_args!("STOP {}: {cause}\n", reason.word()));
    }
    console::serial::drain();
    match reason {
        Reason::PowerOff => power::off(),
        Reason::Reboot => power::reset(),
        Reason::Crash | Reason::Boot | Reason::Panic if NO_REBOOT.load(Ordering::Relaxed) => halt(),
        Reason::Crash | Reason::Boot | Reason::Panic => power::reset(),
    }
}

/// Stops the other CPUs and makes the console ours; called first by all that panic. A second panic halts at once.
pub fn begin_panic() {
    if PANICKING.swap(true, Ordering::AcqRel) {
        halt();
    }
    stop_others();
}

/// Stops the other CPUs, once, and makes the console ours.
fn stop_others() {
    if STOPPING.swap(true, Ordering::AcqRel) {
        return;
    }
    x86_64::instructions::interrupts::disable();
    if UP.load(Ordering::Acquire) {
        let me = cpu::current().id();
        for other in cpu::percpu::all().filter(|other| other.id() != me) {
            local_apic::send_nmi(other.apic_id());
        }
        // Long enough for the others to reach their NMI handler; a lock they held stays held, hence the break below.
        for _ in 0..1_000_000 {
            core::hint::spin_loop();
        }
    }
    // SAFETY: the other CPUs have been stopped.
    unsafe { console::break_locks() };
}

/// Stops the calling CPU for good if another one is bringing the machine down.
pub fn check_stopped() {
    if STOPPING.load(Ordering::Acquire) {
        halt();
    }
}

/// Halts the calling CPU for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Writes the registers of an interrupt frame.
pub fn print_registers(frame: &Frame) {
    console::print(format_args!(
        "rip {:#018x} rsp {:#018x} rflags {:#x} cs {:#x}\n\
         rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}\n\
         rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}\n\
         r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}\n\
         r13 {:#018x} r14 {:#018x} r15 {:#018x}\n",
        frame.rip,
        frame.rsp,
        frame.rflags,
        frame.cs,
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
    ));
}

/// Follows the chain of frame pointers and names the functions.
pub fn backtrace(rip: u64, frame_pointer: u64) {
    const DEEPEST: usize = 32;
    print_place(rip);
    let mut frame = frame_pointer;
    for _ in 0..DEEPEST {
        // Frames lie on a hypervisor stack: in the image, in the stack region, never in the lower half.
        if !frame.is_multiple_of(8) || frame < layout::STACKS {
            break;
        }
        let pointer = core::ptr::with_exposed_provenance::<[u64; 2]>(frame as usize);
        // SAFETY: checked above to be in the hypervisor's half; frame pointers are never omitted in this build.
        let [next, return_address] = unsafe { pointer.read() };
        if return_address < layout::IMAGE_OFFSET {
            break;
        }
        print_place(return_address);
        if next <= frame {
            break;
        }
        frame = next;
    }
}

fn print_place(address: u64) {
    match symbols::lookup(address) {
        Some((name, offset)) => {
            console::print(format_args!(
                "  at {address:#018x} {:#}+{offset:#x}\n",
                rustc_demangle::demangle(name)
            ));
        }
        None => console::print(format_args!("  at {address:#018x}\n")),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin_panic();
    console::print(format_args!(
        "hypervisor bug after stage {:02}\n",
        console::current_stage()
    ));
    let (rip, rbp): (u64, u64);
    // SAFETY: reads two registers.
    unsafe {
        core::arch::asm!("lea {}, [rip]", "mov {}, rbp", out(reg) rip, out(reg) rbp, options(nomem, nostack));
    }
    backtrace(rip, rbp);
    match info.location() {
        Some(place) => finish(
            Reason::Panic,
            format_args!("{} at {}:{}", info.message(), place.file(), place.line()),
        ),
        None => finish(Reason::Panic, format_args!("{}", info.message())),
    }
}
