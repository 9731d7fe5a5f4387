//! What the CPU's capability MSRs say (SDM vol. 3, appendix A): the value of each group of controls, or the mandatory
//! feature that is missing, by its name.

use super::controls::{self, Group, pin, secondary};
use crate::cpu::msr;
use crate::virt::Missing;

const VMX_BASIC: u32 = 0x480;
const VMX_MISC: u32 = 0x485;
const VMX_EPT_VPID: u32 = 0x48C;

const EPT_GIGABYTE_PAGES: u64 = 1 << 17;
const INVEPT_SINGLE: u64 = 1 << 25;
const INVVPID_SINGLE: u64 = 1 << 41;

/// Registers and interrupts; one without the other is not used.
const APIC_BOTH: u32 = secondary::APIC_REGISTERS | secondary::INTERRUPT_DELIVERY;

/// The controls as every VMCS begins with them, and what else the CPU told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub revision: u32,
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
    /// Log2 of the TSC ticks in one count of the preemption timer; `None` without a timer.
    pub timer_shift: Option<u32>,
    /// INVEPT can drop one context alone.
    pub invept_single: bool,
    /// INVVPID can drop one context alone.
    pub invvpid_single: bool,
    pub gigabyte_pages: bool,
    /// Secondary controls with which the CPU virtualizes the local APIC's page, and its MSRs; 0 where it cannot.
    pub apic_page: u32,
    pub apic_msrs: u32,
    /// The secondary control with which accesses to the local APIC's page exit as such, so that some need no decoding; 0 where
    /// there is none.
    pub apic_accesses: u32,
}

impl Capabilities {
    /// Reads the calling CPU's capabilities.
    ///
    /// # Errors
    /// The first mandatory feature that is missing.
    pub fn probe(apic: bool) -> Result<Self, Missing> {
        const TRUE_CONTROLS: u64 = 1 << 55;
        let basic = msr::read(VMX_BASIC);
        let settle = |group: &Group| settle(group, basic & TRUE_CONTROLS != 0);
        let (pin, primary) = (settle(&controls::PIN)?, settle(&controls::PRIMARY)?);
        let secondary = settle(&controls::SECONDARY)?;
        let (exit, entry) = (settle(&controls::EXIT)?, settle(&controls::ENTRY)?);
        check_windows(basic & TRUE_CONTROLS != 0)?;
        let memory = check_ept()?;
        let timer = pin & pin::PREEMPTION_TIMER != 0;
        let (_, may) = limits(&controls::SECONDARY, false);
        let whole = |bits: u32| if apic && may & bits == bits { bits } else { 0 };
        let apic_accesses = may & secondary::APIC_ACCESSES;
        let apic_page = whole(APIC_BOTH | secondary::APIC_ACCESSES);
        Ok(Self {
            revision: basic as u32 & 0x7FFF_FFFF,
            // Turned on for each vCPU when it has a deadline.
            pin: pin & !pin::PREEMPTION_TIMER,
            primary,
            secondary,
            exit,
            entry,
            timer_shift: timer.then(|| msr::read(VMX_MISC) as u32 & 0x1F),
            invept_single: memory & INVEPT_SINGLE != 0,
            invvpid_single: memory & INVVPID_SINGLE != 0,
            gigabyte_pages: memory & EPT_GIGABYTE_PAGES != 0,
            apic_page,
            // A CPU that has only this one could not keep a guest's interrupts over a change of mode.
            apic_msrs: if apic_page == 0 {
                0
            } else {
                whole(APIC_BOTH | secondary::X2APIC)
            },
            apic_accesses,
        })
    }

    /// Optional features, with whether they are in use.
    pub const fn optional(&self) -> [(&'static str, bool); 7] {
        [
            (
                "APIC-register virtualization and virtual-interrupt delivery",
                self.apic_page != 0,
            ),
            ("the same for x2APIC", self.apic_msrs != 0),
            ("preemption timer", self.timer_shift.is_some()),
            ("1 GiB pages", self.gigabyte_pages),
            ("RDTSCP", self.secondary & secondary::RDTSCP != 0),
            ("INVPCID", self.secondary & secondary::INVPCID != 0),
            (
                "PAUSE-loop exiting",
                self.secondary & secondary::PAUSE_LOOP != 0,
            ),
        ]
    }
}

/// Whether EPT has 1 GiB pages.
pub fn gigabyte_pages() -> bool {
    msr::read_safe(VMX_EPT_VPID).unwrap_or(0) & EPT_GIGABYTE_PAGES != 0
}

/// The value to write: what must be set, what we need, and of what we want what there is (SDM vol. 3, A.3 to A.5).
fn settle(group: &Group, has_true: bool) -> Result<u32, Missing> {
    let (must, may) = limits(group, has_true);
    let lacking = |what: &str| {
        Err(super::missing(format_args!(
            "{what}, a VT-x {} control",
            group.name
        )))
    };
    let mut value = must | group.wanted & may;
    for &(bits, what) in group.needed {
        if may & bits != bits {
            return lacking(what);
        }
        value |= bits;
    }
    match group.unwanted.iter().find(|(bits, _)| must & bits != 0) {
        Some((_, what)) => lacking(what),
        None => Ok(value),
    }
}

fn check_windows(has_true: bool) -> Result<(), Missing> {
    let (_, may) = limits(&controls::PRIMARY, has_true);
    match controls::WINDOWS.iter().find(|(bits, _)| may & bits == 0) {
        Some((_, what)) => Err(super::missing(format_args!(
            "{what}, a VT-x processor-based control"
        ))),
        None => Ok(()),
    }
}

/// Bits that must be set, and bits that may be.
fn limits(group: &Group, has_true: bool) -> (u32, u32) {
    let index = if has_true { group.true_msr } else { group.msr };
    let capability = msr::read_safe(index).unwrap_or(0);
    (capability as u32, (capability >> 32) as u32)
}

/// EPT must walk four levels, in write-back memory, with 2 MiB pages; INVEPT and INVVPID must do all contexts (SDM
/// vol. 3, A.10).
fn check_ept() -> Result<u64, Missing> {
    let needed = [
        (1 << 6, "EPT with a four-level walk"),
        (1 << 14, "EPT with write-back tables"),
        (1 << 16, "EPT with 2 MiB pages"),
        (1 << 20 | 1 << 26, "INVEPT of all contexts"),
        (1 << 32 | 1 << 42, "INVVPID of all contexts"),
    ];
    let capability = msr::read_safe(VMX_EPT_VPID).unwrap_or(0);
    match needed.iter().find(|(bits, _)| capability & bits != *bits) {
        Some((_, what)) => Err(super::missing(format_args!("{what}"))),
        None => Ok(capability),
    }
}
