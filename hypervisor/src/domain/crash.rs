//! The ends of a vCPU and of a domain, and what is said about them.

use core::fmt::{self, Write};

use oxen_abi::Errno;
use oxen_abi::hvm::param;
use oxen_abi::sched::reason;
use oxen_core::address::GuestPhys;
use oxen_core::emulate::DecodeError;

use super::Domain;
use crate::console;
use crate::stop::{self, Reason};
use crate::vcpu::{Running, Wait, counters};
use crate::virt::Vcpu;

/// dom0 uses the machine's own way to switch it off or to reset it.
pub fn machine_ends(domain: &Domain, reason: Reason) -> ! {
    log::info!("{}", counters::Exits(domain));
    stop::finish(reason, format_args!(""))
}

/// The domain asks to be shut down.
pub fn shutdown<H: Vcpu>(vcpu: &mut Running<H>, why: u32) -> Result<u64, Errno> {
    if !vcpu.domain.privileged {
        if why > reason::MAX {
            return Err(Errno::Inval);
        }
        if why == reason::CRASH {
            report(vcpu, "crashed");
        }
        vcpu.domain.shut_down(why);
        return Ok(0);
    }
    match why {
        reason::POWEROFF => finish(vcpu, Reason::PowerOff, format_args!("")),
        reason::REBOOT | reason::SOFT_RESET => finish(vcpu, Reason::Reboot, format_args!("")),
        reason::CRASH => {
            report(vcpu, "crashed");
            finish(
                vcpu,
                Reason::Crash,
                format_args!("dom0 reported its own crash"),
            )
        }
        reason::WATCHDOG => {
            report(vcpu, "was ended by its watchdog");
            finish(vcpu, Reason::Crash, format_args!("dom0's watchdog expired"))
        }
        // The control domain cannot be suspended: nobody would wake it.
        _ => Err(Errno::Inval),
    }
}

/// A vCPU halted with interrupts off, or was switched off: it is down, and with the last one its domain is off.
pub fn vcpu_down<H: Vcpu>(vcpu: &mut Running<H>) {
    vcpu.wait = Wait::Down;
    vcpu.shared().set_up(false);
    if vcpu.domain.vcpus.iter().all(|vcpu| !vcpu.is_up()) {
        end(vcpu, Reason::PowerOff, format_args!(""));
    }
}

/// A triple fault: how old kernels reboot, and how broken ones die.
pub fn triple_fault<H: Vcpu>(vcpu: &mut Running<H>) {
    report(vcpu, "had a triple fault");
    if vcpu.domain.privileged {
        finish(vcpu, Reason::Crash, format_args!("dom0 had a triple fault"));
    }
    // What its builder says, see `Params`.
    let why = vcpu.domain.params.value(param::TRIPLE_FAULT_REASON) as u32;
    vcpu.domain.shut_down(why);
}

/// An exit that no handler knows.
pub fn unexpected<H: Vcpu>(vcpu: &mut Running<H>, code: u64) {
    report(vcpu, "left guest mode for an unexpected reason");
    end(
        vcpu,
        Reason::Crash,
        format_args!("unexpected exit {code:#x} of dom0"),
    );
}

/// An access to emulated registers by an instruction that is not emulated.
pub fn not_emulated<H: Vcpu>(
    vcpu: &mut Running<H>,
    address: GuestPhys,
    bytes: &[u8],
    error: DecodeError,
) {
    console::print(format_args!(
        "instruction {bytes:02x?} at device address {address}: {error:?}\n"
    ));
    report(
        vcpu,
        "used an instruction on device memory that is not emulated",
    );
    end(
        vcpu,
        Reason::Crash,
        format_args!("dom0 touched {address} with an instruction that is not emulated"),
    );
}

/// The end of a domain: of a guest it is the guest's, of the control domain the machine's.
fn end<H: Vcpu>(vcpu: &mut Running<H>, why: Reason, cause: fmt::Arguments<'_>) {
    if vcpu.domain.privileged {
        finish(vcpu, why, cause);
    }
    vcpu.domain.shut_down(match why {
        Reason::PowerOff => reason::POWEROFF,
        Reason::Reboot => reason::REBOOT,
        Reason::Crash | Reason::Boot | Reason::Panic => reason::CRASH,
    });
}

fn finish<H: Vcpu>(vcpu: &Running<H>, reason: Reason, cause: fmt::Arguments<'_>) -> ! {
    log::info!("{}", counters::Exits(&vcpu.domain));
    stop::finish(reason, cause)
}

/// Logs a vCPU's registers.
fn report<H: Vcpu>(vcpu: &Running<H>, what: &str) {
    console::print(format_args!(
        "domain {} vcpu {} {what}\n",
        vcpu.domain.id,
        vcpu.shared().id
    ));
    let registers = &vcpu.gprs.0;
    console::print(format_args!(
        "rip {:#018x} rsp {:#018x} rflags {:#x}\n",
        vcpu.hardware.rip(),
        vcpu.hardware.rsp(),
        vcpu.hardware.rflags()
    ));
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8 ", "r9 ", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    for (names, values) in NAMES.chunks(4).zip(registers.chunks(4)) {
        // In one piece: each is a line of the log.
        let mut line = arrayvec::ArrayString::<128>::new();
        for (name, value) in names.iter().zip(values).filter(|(name, _)| **name != "rsp") {
            // There is room for four.
            let _ = write!(line, "{name} {value:#018x} ");
        }
        console::print(format_args!("{}\n", line.trim_end()));
    }
    let mut text = arrayvec::ArrayString::<1024>::new();
    // A dump that does not fit is cut: the lines so far are still worth printing.
    let _ = vcpu.hardware.dump(&mut text);
    for line in text.lines() {
        console::print(format_args!("{line}\n"));
    }
}
