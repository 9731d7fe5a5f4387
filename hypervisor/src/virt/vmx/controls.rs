//! The execution controls: what we want, what the CPU allows (SDM vol. 3, 25.6 to 25.8 and appendix A).

use crate::cpu::msr;
use crate::virt::Missing;

const VMX_BASIC: u32 = 0x480;
const VMX_MISC: u32 = 0x485;
const VMX_EPT_VPID: u32 = 0x48C;

/// Pin-based controls.
pub mod pin {
    pub const EXTERNAL_INTERRUPT: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 3;
    pub const VIRTUAL_NMI: u32 = 1 << 5;
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
}

/// Primary processor-based controls.
pub mod primary {
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub const TSC_OFFSET: u32 = 1 << 3;
    pub const HLT: u32 = 1 << 7;
    pub const MWAIT: u32 = 1 << 10;
    pub const RDPMC: u32 = 1 << 11;
    pub const TPR_SHADOW: u32 = 1 << 21;
    pub const NMI_WINDOW: u32 = 1 << 22;
    pub const PORT_BITMAPS: u32 = 1 << 25;
    pub const MSR_BITMAPS: u32 = 1 << 28;
    pub const MONITOR: u32 = 1 << 29;
    pub const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls.
pub mod secondary {
    pub const EPT: u32 = 1 << 1;
    pub const RDTSCP: u32 = 1 << 3;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD: u32 = 1 << 6;
    pub const UNRESTRICTED: u32 = 1 << 7;
    pub const PAUSE_LOOP: u32 = 1 << 10;
    pub const INVPCID: u32 = 1 << 12;
}

/// Exit controls.
pub mod exit {
    pub const SAVE_DEBUG: u32 = 1 << 2;
    pub const HOST_64_BIT: u32 = 1 << 9;
    pub const SAVE_PAT: u32 = 1 << 18;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
}

/// Entry controls.
pub mod entry {
    pub const LOAD_DEBUG: u32 = 1 << 2;
    pub const GUEST_64_BIT: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
}

/// A group of controls: its capability MSRs (plain and true), and what we ask for.
struct Group {
    name: &'static str,
    msr: u32,
    true_msr: u32,
    needed: &'static [(u32, &'static str)],
    wanted: u32,
}

const PIN: Group = Group {
    name: "pin-based",
    msr: 0x481,
    true_msr: 0x48D,
    needed: &[
        (pin::EXTERNAL_INTERRUPT, "external-interrupt exiting"),
        (pin::NMI, "NMI exiting"),
        (pin::VIRTUAL_NMI, "virtual NMIs"),
    ],
    wanted: pin::PREEMPTION_TIMER,
};
const PRIMARY: Group = Group {
    name: "processor-based",
    msr: 0x482,
    true_msr: 0x48E,
    needed: &[
        (primary::TSC_OFFSET, "TSC offsetting"),
        (primary::HLT, "HLT exiting"),
        (primary::TPR_SHADOW, "TPR shadow"),
        (primary::PORT_BITMAPS, "I/O bitmaps"),
        (primary::MSR_BITMAPS, "MSR bitmaps"),
        (primary::SECONDARY, "secondary controls"),
        (
            primary::MWAIT | primary::MONITOR | primary::RDPMC,
            "MONITOR, MWAIT and RDPMC exiting",
        ),
    ],
    wanted: 0,
};
const SECONDARY: Group = Group {
    name: "secondary",
    msr: 0x48B,
    true_msr: 0x48B,
    needed: &[
        (secondary::EPT, "extended page tables (EPT)"),
        (secondary::VPID, "virtual processor IDs (VPID)"),
        (secondary::UNRESTRICTED, "unrestricted guest"),
        (secondary::WBINVD, "WBINVD exiting"),
    ],
    wanted: secondary::RDTSCP | secondary::INVPCID | secondary::PAUSE_LOOP,
};
const EXIT: Group = Group {
    name: "exit",
    msr: 0x483,
    true_msr: 0x48F,
    needed: &[
        (exit::HOST_64_BIT, "64-bit host"),
        (exit::SAVE_PAT | exit::LOAD_PAT, "PAT switching at exit"),
        (exit::SAVE_EFER | exit::LOAD_EFER, "EFER switching at exit"),
        (exit::SAVE_DEBUG, "debug controls at exit"),
    ],
    wanted: 0,
};
const ENTRY: Group = Group {
    name: "entry",
    msr: 0x484,
    true_msr: 0x490,
    needed: &[
        (entry::LOAD_PAT, "PAT switching at entry"),
        (entry::LOAD_EFER, "EFER switching at entry"),
        (entry::LOAD_DEBUG, "debug controls at entry"),
    ],
    wanted: 0,
};

/// The controls as every VMCS begins with them, and what else the CPU told.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    pub revision: u32,
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
    /// Log2 of the TSC ticks in one count of the preemption timer; `None` without a timer.
    pub timer_shift: Option<u32>,
}

impl Controls {
    /// Reads the capabilities.
    ///
    /// # Errors
    /// The first mandatory feature that is missing.
    pub fn probe() -> Result<Self, Missing> {
        const TRUE_CONTROLS: u64 = 1 << 55;
        let basic = msr::read(VMX_BASIC);
        let settle = |group: &Group| group.settle(basic & TRUE_CONTROLS != 0);
        let (pin, primary) = (settle(&PIN)?, settle(&PRIMARY)?);
        let (secondary, exit, entry) = (settle(&SECONDARY)?, settle(&EXIT)?, settle(&ENTRY)?);
        check_ept()?;
        let timer = pin & pin::PREEMPTION_TIMER != 0;
        Ok(Self {
            revision: basic as u32 & 0x7FFF_FFFF,
            // Turned on for each vCPU when it has a deadline.
            pin: pin & !pin::PREEMPTION_TIMER,
            primary,
            secondary,
            exit,
            entry,
            timer_shift: timer.then(|| msr::read(VMX_MISC) as u32 & 0x1F),
        })
    }
}

impl Group {
    /// The value to write: what must be set, what we need, and of what we want what there is (SDM vol. 3, A.3 to A.5).
    fn settle(&self, has_true: bool) -> Result<u32, Missing> {
        let capability =
            msr::read_safe(if has_true { self.true_msr } else { self.msr }).unwrap_or(0);
        let (must, may) = (capability as u32, (capability >> 32) as u32);
        let mut value = must | self.wanted & may;
        for &(bits, what) in self.needed {
            if may & bits != bits {
                return Err(super::missing(format_args!(
                    "{what}, a VT-x {} control",
                    self.name
                )));
            }
            value |= bits;
        }
        Ok(value)
    }
}

/// EPT must walk four levels, in write-back memory, with 2 MiB pages and INVEPT for all contexts (SDM vol. 3, A.10).
fn check_ept() -> Result<(), Missing> {
    let needed = [
        (1 << 6, "a four-level walk"),
        (1 << 14, "write-back tables"),
        (1 << 16, "2 MiB pages"),
        (1 << 20 | 1 << 26, "INVEPT of all contexts"),
    ];
    let capability = msr::read_safe(VMX_EPT_VPID).unwrap_or(0);
    match needed.iter().find(|(bits, _)| capability & bits != *bits) {
        Some((_, what)) => Err(super::missing(format_args!("EPT with {what}"))),
        None => Ok(()),
    }
}

/// Whether EPT has 1 GiB pages.
pub fn gigabyte_pages() -> bool {
    msr::read_safe(VMX_EPT_VPID).unwrap_or(0) & 1 << 17 != 0
}
