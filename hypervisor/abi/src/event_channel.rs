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

/// Those for 32-bit guests.
pub const TWO_LEVEL_PORTS_NARROW: u32 = 1024;

/// The FIFO ABI: event words in pages that the guest gives, linked into queues by priority.
pub mod fifo {
    /// Bits of a port's number in an event word (`EVTCHN_FIFO_LINK_BITS`).
    pub const LINK_BITS: u8 = 17;
    /// Ports (`EVTCHN_FIFO_NR_CHANNELS`).
    pub const PORTS: u32 = 1 << LINK_BITS;
    /// Event words in a page of the array.
    pub const WORDS_PER_PAGE: usize = 1024;
    /// Pages that hold the words of all ports.
    pub const ARRAY_PAGES: usize = PORTS as usize / WORDS_PER_PAGE;

    /// In an event word: the event has come and has not been taken.
    pub const PENDING: u32 = 1 << 31;
    /// The guest does not want to be told.
    pub const MASKED: u32 = 1 << 30;
    /// The port is in a queue.
    pub const LINKED: u32 = 1 << 29;
    /// The hypervisor is changing the link: the guest must not unmask the port meanwhile.
    pub const BUSY: u32 = 1 << 28;
    /// The next port in the queue; 0 at its end.
    pub const LINK: u32 = PORTS - 1;

    /// Priorities, of which 0 is the highest (`EVTCHN_FIFO_MAX_QUEUES`).
    pub const PRIORITIES: usize = 16;
    /// The priority of a port that was given none (`EVTCHN_FIFO_PRIORITY_DEFAULT`).
    pub const PRIORITY_DEFAULT: u8 = 7;

    /// Offsets in a vCPU's control block (`evtchn_fifo_control_block`).
    pub mod control_block {
        /// `ready`: a bit per priority.
        pub const READY: usize = 0;
        /// `head`: the first port of each priority's queue.
        pub const HEADS: usize = 8;
        /// Bytes of a control block.
        pub const SIZE: usize = HEADS + 4 * super::PRIORITIES;
        /// A control block lies at a multiple of this.
        pub const ALIGNMENT: usize = 8;
        const _: () = assert!(SIZE == 72);
    }
}
