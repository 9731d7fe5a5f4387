//! The execution controls by name, which of them are mandatory, and which are used where a CPU has them.

pub use super::capabilities::gigabyte_pages;

/// Pin-based controls (SDM vol. 3, 25.6.1).
pub mod pin {
    pub const EXTERNAL_INTERRUPT: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 3;
    pub const VIRTUAL_NMI: u32 = 1 << 5;
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
}

/// Primary processor-based controls (SDM vol. 3, 25.6.2, table 25-6).
pub mod primary {
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub const TSC_OFFSET: u32 = 1 << 3;
    pub const HLT: u32 = 1 << 7;
    pub const MWAIT: u32 = 1 << 10;
    pub const RDPMC: u32 = 1 << 11;
    pub const CR3_LOAD: u32 = 1 << 15;
    pub const CR3_STORE: u32 = 1 << 16;
    pub const TPR_SHADOW: u32 = 1 << 21;
    pub const NMI_WINDOW: u32 = 1 << 22;
    pub const PORT_BITMAPS: u32 = 1 << 25;
    pub const MSR_BITMAPS: u32 = 1 << 28;
    pub const MONITOR: u32 = 1 << 29;
    pub const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls (SDM vol. 3, 25.6.2, table 25-7).
pub mod secondary {
    pub const APIC_ACCESSES: u32 = 1 << 0;
    pub const EPT: u32 = 1 << 1;
    pub const RDTSCP: u32 = 1 << 3;
    pub const X2APIC: u32 = 1 << 4;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD: u32 = 1 << 6;
    pub const UNRESTRICTED: u32 = 1 << 7;
    pub const APIC_REGISTERS: u32 = 1 << 8;
    pub const INTERRUPT_DELIVERY: u32 = 1 << 9;
    pub const PAUSE_LOOP: u32 = 1 << 10;
    pub const INVPCID: u32 = 1 << 12;
    pub const ENCLS: u32 = 1 << 15;
}

/// Exit controls (SDM vol. 3, 25.7.1).
pub mod exit {
    pub const SAVE_DEBUG: u32 = 1 << 2;
    pub const HOST_64_BIT: u32 = 1 << 9;
    pub const SAVE_PAT: u32 = 1 << 18;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
}

/// Entry controls (SDM vol. 3, 25.8.1).
pub mod entry {
    pub const LOAD_DEBUG: u32 = 1 << 2;
    pub const GUEST_64_BIT: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
}

/// A group of controls: its capability MSRs (plain and true, SDM vol. 3, A.3 to A.5), and what we ask for.
pub struct Group {
    pub name: &'static str,
    pub msr: u32,
    pub true_msr: u32,
    /// Mandatory, with the manual's names.
    pub needed: &'static [(u32, &'static str)],
    /// Used where there.
    pub wanted: u32,
    /// What must be possible to leave off.
    pub unwanted: &'static [(u32, &'static str)],
}

pub const PIN: Group = Group {
    name: "pin-based",
    msr: 0x481,
    true_msr: 0x48D,
    needed: &[
        (pin::EXTERNAL_INTERRUPT, "external-interrupt exiting"),
        (pin::NMI, "NMI exiting"),
        (pin::VIRTUAL_NMI, "virtual NMIs"),
    ],
    wanted: pin::PREEMPTION_TIMER,
    unwanted: &[],
};

pub const PRIMARY: Group = Group {
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
            primary::MWAIT | primary::MONITOR,
            "MONITOR and MWAIT exiting",
        ),
        (primary::RDPMC, "RDPMC exiting"),
    ],
    wanted: 0,
    unwanted: &[(
        primary::CR3_LOAD | primary::CR3_STORE,
        "CR3 accesses without exits",
    )],
};

/// The window controls are turned on only while a window is asked for.
pub const WINDOWS: [(u32, &str); 2] = [
    (primary::INTERRUPT_WINDOW, "interrupt-window exiting"),
    (primary::NMI_WINDOW, "NMI-window exiting"),
];

pub const SECONDARY: Group = Group {
    name: "secondary",
    msr: 0x48B,
    true_msr: 0x48B,
    needed: &[
        (secondary::EPT, "extended page tables (EPT)"),
        (secondary::VPID, "virtual processor IDs (VPID)"),
        (secondary::UNRESTRICTED, "unrestricted guest"),
        (secondary::WBINVD, "WBINVD exiting"),
    ],
    // ENCLS exits so that a guest, which is not shown SGX, cannot use it.
    wanted: secondary::RDTSCP | secondary::INVPCID | secondary::PAUSE_LOOP | secondary::ENCLS,
    unwanted: &[],
};

pub const EXIT: Group = Group {
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
    unwanted: &[],
};

pub const ENTRY: Group = Group {
    name: "entry",
    msr: 0x484,
    true_msr: 0x490,
    needed: &[
        (entry::LOAD_PAT, "PAT switching at entry"),
        (entry::LOAD_EFER, "EFER switching at entry"),
        (entry::LOAD_DEBUG, "debug controls at entry"),
    ],
    wanted: 0,
    unwanted: &[],
};
