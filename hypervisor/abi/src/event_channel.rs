//! Event channels (`public/event_channel.h`) and virtual interrupts (`public/xen.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const BIND_INTERDOMAIN: u64 = 0;
    pub const BIND_VIRQ: u64 = 1;
    pub const BIND_PIRQ: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const SEND: u64 = 4;
    pub const STATUS: u64 = 5;
    pub const ALLOC_UNBOUND: u64 = 6;
    pub const BIND_IPI: u64 = 7;
    pub const BIND_VCPU: u64 = 8;
    pub const UNMASK: u64 = 9;
    pub const RESET: u64 = 10;
    pub const INIT_CONTROL: u64 = 11;
    pub const EXPAND_ARRAY: u64 = 12;
    pub const SET_PRIORITY: u64 = 13;
    pub const RESET_CONT: u64 = 14;
}

/// A virtual interrupt's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virq(pub u32);

#[allow(missing_docs)]
impl Virq {
    pub const TIMER: Self = Self(0);
    pub const DEBUG: Self = Self(1);
    pub const CONSOLE: Self = Self(2);
    pub const DOM_EXC: Self = Self(3);
    pub const TBUF: Self = Self(4);
    pub const DEBUGGER: Self = Self(6);
    pub const XENOPROF: Self = Self(7);
    pub const CON_RING: Self = Self(8);
    pub const PCPU_STATE: Self = Self(9);
    pub const MEM_EVENT: Self = Self(10);
    pub const ARGO: Self = Self(11);
    pub const ENOMEM: Self = Self(12);
    pub const XENPMU: Self = Self(13);
    /// Machine checks (`VIRQ_MCA`).
    pub const ARCH_0: Self = Self(16);
    /// `NR_VIRQS`.
    pub const COUNT: u32 = 24;

    /// Whether each vCPU has one of its own.
    pub const fn is_per_vcpu(self) -> bool {
        matches!(
            self,
            Self::TIMER | Self::DEBUG | Self::XENOPROF | Self::XENPMU
        )
    }
}

/// States that `EVTCHNOP_status` reports.
#[allow(missing_docs)]
pub mod status {
    pub const CLOSED: u32 = 0;
    pub const UNBOUND: u32 = 1;
    pub const INTERDOMAIN: u32 = 2;
    pub const PIRQ: u32 = 3;
    pub const VIRQ: u32 = 4;
    pub const IPI: u32 = 5;
}

/// Ports of the 2-level ABI for 64-bit guests.
pub const TWO_LEVEL_PORTS: u32 = 4096;
