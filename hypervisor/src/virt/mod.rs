//! The seam between the two virtualization extensions and everything above them.
//!
//! Above this module there are exits, intercepts, injected events and guest registers; VMCS fields and VMCB offsets
//! stay below it. Dispatch is static: the boot CPU chooses the backend once, and the vCPU loop is compiled for each.

pub mod svm;
pub mod vmx;

use core::fmt;

use alloc::string::String;

use oxen_core::address::{GuestPhys, HostPhys, Mfn};
use oxen_core::apic::local::Mode;
use oxen_core::id::CpuId;
pub use oxen_core::registers::{Msrs, Registers, Segment};
pub use oxen_core::start::StartRegisters;

/// Guest general-purpose registers, indexed by their x86 encoding. Slot 4 (RSP) is not kept here: the hardware saves
/// it, see [`Vcpu::rsp`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Gprs(pub [u64; 16]);

impl Gprs {
    /// Encodings of the registers that the ABI names.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;

    /// EDX:EAX as one value, as RDMSR, WRMSR and XSETBV use it.
    pub fn edx_eax(&self) -> u64 {
        (self.0[Self::RDX] << 32) | (self.0[Self::RAX] & 0xFFFF_FFFF)
    }

    /// Splits `value` over EDX:EAX, upper halves cleared.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.0[Self::RAX] = value & 0xFFFF_FFFF;
        self.0[Self::RDX] = value >> 32;
    }
}

/// One port access that the guest attempted.
#[derive(Clone, Copy, Debug)]
pub struct PortAccess {
    /// First port.
    pub port: u16,
    /// Width in bytes: 1, 2 or 4.
    pub width: u8,
    /// Whether data flows from the port to the guest (IN).
    pub input: bool,
    /// Whether this is INS or OUTS.
    pub string: bool,
    /// Whether the instruction has a REP prefix.
    pub repeat: bool,
    /// Bytes of the instruction.
    pub length: u8,
}

/// A guest-physical access that the nested page tables refused.
#[derive(Clone, Copy, Debug)]
pub struct NestedFault {
    /// Where.
    pub address: GuestPhys,
    /// Whether the access was a write.
    pub write: bool,
    /// Whether the access was an instruction fetch.
    pub execute: bool,
}

/// A control-register access that cannot be left to the hardware.
#[derive(Clone, Copy, Debug)]
pub enum ControlRegisterAccess {
    /// MOV to CR8 of the task priority (bits 3:0).
    WriteCr8(u8),
    /// MOV from CR8 into a register, by x86 encoding.
    ReadCr8(usize),
}

/// Why a vCPU left guest mode, in words that both vendors share.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// A physical interrupt is pending on this CPU; it has not been acknowledged.
    ExternalInterrupt,
    /// An NMI arrived; the backend has already let the host's NMI handler run.
    Nmi,
    /// A machine check arrived; the backend has already let the host's handler run.
    MachineCheck,
    /// The guest can now take an external interrupt, as requested.
    InterruptWindow,
    /// The guest can now take an NMI, as requested.
    NmiWindow,
    /// The deadline given to [`Vcpu::set_deadline`] has passed.
    Deadline,
    /// CPUID.
    Cpuid,
    /// HLT.
    Halt,
    /// PAUSE in a spin loop, where the hardware detects it.
    Pause,
    /// RDMSR of a register that is intercepted.
    ReadMsr,
    /// WRMSR of a register that is intercepted.
    WriteMsr,
    /// IN, OUT, INS or OUTS on an intercepted port.
    Port(PortAccess),
    /// The nested page tables have no (sufficient) mapping.
    NestedFault(NestedFault),
    /// The vendor's own hypercall instruction (VMCALL on VT-x, VMMCALL on AMD-V).
    Hypercall,
    /// #UD in the guest, intercepted so that the other vendor's hypercall instruction can be honoured.
    UndefinedOpcode,
    /// XSETBV.
    Xsetbv,
    /// INVD or WBINVD.
    CacheFlush,
    /// The CPU has stored what the guest wrote to the register at this offset of its local APIC.
    ApicWrite(u32),
    /// The CPU has ended the service of this vector.
    EndOfInterrupt(u8),
    /// A control-register access.
    ControlRegister(ControlRegisterAccess),
    /// An instruction of a feature that guests are not shown: the guest gets #UD.
    Refused,
    /// Triple fault.
    Shutdown,
    /// INIT or SIPI seen by the hardware itself, or a task switch, or an exit reason that is a hypervisor bug; the
    /// code is the vendor's own.
    Unexpected(u64),
}

/// Names a segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SegmentName {
    Es,
    Cs,
    Ds,
}

/// An exception to be raised in the guest.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, for the vectors that have one.
    pub error_code: Option<u32>,
}

impl Exception {
    /// #UD.
    pub const UNDEFINED_OPCODE: Self = Self {
        vector: 6,
        error_code: None,
    };
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self {
        vector: 13,
        error_code: Some(0),
    };
}

/// Registers that the common layer reads to walk guest page tables and to judge privilege.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRegisters {
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// What a new vCPU needs to know of its domain.
#[derive(Clone, Copy, Debug)]
pub struct VcpuConfig {
    /// Root table of the domain's guest-physical map.
    pub nested_root: Mfn,
    /// 8 KiB (two pages, ports 0–0x7FFF and 0x8000–0xFFFF; a set bit refuses the port): shared by the domain's vCPUs.
    /// Followed by one page of ones for AMD-V's bitmap tail.
    pub port_bitmap: HostPhys,
    /// The local APIC register page, in the hardware's layout; backends with APIC virtualization let the CPU use it.
    pub apic_page: HostPhys,
    /// What is mapped where guests have the local APIC, where [`Backend::wants_apic_access_page`].
    pub apic_access_page: Option<HostPhys>,
    /// Tells the guest TSC from the host's: guest = host + offset.
    pub tsc_offset: u64,
}

/// Why a machine cannot run guests with this backend: names the feature and, where there is one, the fix.
pub type Missing = String;

/// One vendor's virtualization extension.
pub trait Backend: Sized + Send + Sync + 'static {
    /// Name for the log: `VT-x` or `AMD-V`.
    const NAME: &'static str;
    /// A vCPU's hardware state.
    type Vcpu: Vcpu<Backend = Self>;

    /// Checks the boot CPU for all that is mandatory, and notes what is optional. `apic` allows the CPU's own
    /// virtualization of local APICs.
    ///
    /// # Errors
    /// The missing feature, by the manual's name for it.
    fn probe(apic: bool) -> Result<Self, Missing>;

    /// Whether the local APIC's page of guests must be mapped, for the CPU to virtualize it.
    fn wants_apic_access_page(&self) -> bool {
        false
    }

    /// Turns the extension on for the calling CPU; called once on each CPU before any vCPU runs there.
    ///
    /// # Errors
    /// The feature that this CPU lacks.
    fn enable(&self, cpu: CpuId) -> Result<(), Missing>;

    /// Makes a vCPU, to be started by [`Vcpu::start`].
    ///
    /// # Errors
    /// Out of memory.
    fn new_vcpu(&self, config: VcpuConfig) -> Result<Self::Vcpu, Missing>;

    /// One line that names the optional features in use.
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// One vCPU's hardware state. Used only by the CPU that has it, interrupts disabled.
pub trait Vcpu: Send + 'static {
    /// The vendor.
    type Backend: Backend;

    /// Makes this CPU the one that runs the vCPU (VMCS load; cleared clean bits and ASID). Called before the first
    /// entry and whenever another vCPU ran here in between.
    fn load(&mut self);

    /// Drops this CPU's cached guest-physical translations, after nested tables lost or narrowed a mapping.
    fn flush_nested(&mut self);

    /// Lets go of the CPU, so that another can take its place, here or elsewhere.
    fn unload(&mut self);

    /// Sets the given registers, and all others but MSRs as after INIT.
    fn start(&mut self, gprs: &mut Gprs, start: &StartRegisters) {
        self.set_registers(gprs, &start.into());
    }

    /// Sets all registers but those of [`Vcpu::set_msrs`] and the breakpoints; no event waits for entry then. Those that no CPU
    /// enters with have been refused (`oxen_core::context::check`).
    fn set_registers(&mut self, gprs: &mut Gprs, registers: &Registers);

    /// Sets the MSRs that INIT leaves alone.
    fn set_msrs(&mut self, msrs: &Msrs);

    /// Runs the guest until something needs the hypervisor.
    fn enter(&mut self, gprs: &mut Gprs) -> Exit;

    /// Instruction pointer.
    fn rip(&self) -> u64;
    /// Stack pointer.
    fn rsp(&self) -> u64;
    /// Sets the stack pointer.
    fn set_rsp(&mut self, rsp: u64);
    /// Flags.
    fn rflags(&self) -> u64;
    /// Sets the flags.
    fn set_rflags(&mut self, rflags: u64);
    /// All registers but the breakpoints, the general-purpose ones from `gprs`.
    fn registers(&mut self, gprs: &Gprs) -> Registers;
    /// Control registers and EFER.
    fn system(&self) -> SystemRegisters;
    /// Sets CR2, before a page fault is raised.
    fn set_cr2(&mut self, cr2: u64);
    /// A segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;
    /// Whether it runs 64-bit code.
    fn in_64_bit_mode(&self) -> bool;
    /// Current privilege level.
    fn cpl(&self) -> u8;

    /// Length of the instruction that caused the exit, where the hardware reports it.
    fn instruction_length(&self) -> Option<u8>;
    /// Moves past an instruction of `length` bytes: advances RIP, ends an STI or MOV-SS shadow.
    fn skip(&mut self, length: u8);

    /// Raises an exception in the guest at the next entry. An event that an exit interrupted in its delivery is
    /// queued again by the backend itself; raising replaces it.
    fn raise(&mut self, exception: Exception);
    /// Delivers an external interrupt at the next entry; only when [`Vcpu::can_interrupt`].
    fn inject_interrupt(&mut self, vector: u8);
    /// Delivers an NMI at the next entry; only when [`Vcpu::can_nmi`].
    fn inject_nmi(&mut self);
    /// The event that waits for the next entry, in the form that both vendors share, and its error code.
    fn queued_event(&self) -> Option<(u32, u32)>;
    /// Whether the guest can take an external interrupt now: IF set, no shadow, no other event waiting for entry.
    fn can_interrupt(&self) -> bool;
    /// Whether IF is set and no shadow holds, whatever waits for entry.
    fn interrupts_enabled(&self) -> bool;
    /// Whether the next entry would let interrupts in where STI keeps them out for one more instruction.
    fn will_forget_shadow(&self) -> bool {
        false
    }
    /// Whether the guest can take an NMI now.
    fn can_nmi(&self) -> bool;
    /// Asks for [`Exit::InterruptWindow`] once the guest can take an interrupt, or stops asking.
    fn want_interrupt_window(&mut self, want: bool);
    /// Asks for [`Exit::NmiWindow`], or stops asking.
    fn want_nmi_window(&mut self, want: bool);

    /// Tells the hardware the highest-priority vector that waits in the local APIC and the task priority, so that
    /// CR8 works without exits; a waiting vector that the priority holds back causes an exit when it no longer does.
    fn set_task_priority(&mut self, tpr: u8, waiting: Option<u8>);
    /// Task priority as the guest last set it through CR8.
    fn task_priority(&self) -> u8;

    /// The guest reaches its local APIC in another way now, or the vCPU has been started.
    fn set_apic_mode(&mut self, _: Mode) {}
    /// Whether the CPU delivers the local APIC's interrupts by itself, so that [`Vcpu::inject_interrupt`] is for others.
    fn delivers_interrupts(&self) -> bool {
        false
    }
    /// Tells such a CPU the highest vector that waits in the local APIC's page.
    fn set_requested(&mut self, _: u8) {}
    /// Tells it which vectors need [`Exit::EndOfInterrupt`], 32 to a word.
    fn set_end_exits(&mut self, _: &[u32; 8]) {}

    /// Asks for [`Exit::Deadline`] once the host TSC reaches `deadline`; returns false if this CPU cannot.
    fn set_deadline(&mut self, deadline: Option<u64>) -> bool;

    /// Reads an MSR whose guest value the hardware or the backend keeps (EFER, PAT, segment bases, SYSENTER, …).
    fn read_kept_msr(&self, index: u32) -> Option<u64>;
    /// Writes such an MSR; `None` if the backend does not keep it, `Some(false)` if the value is not allowed.
    fn write_kept_msr(&mut self, index: u32, value: u64) -> Option<bool>;

    /// Writes the vendor's state for a crash report.
    fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}
