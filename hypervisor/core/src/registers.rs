//! A vCPU's registers as one sees them from outside, and names of their bits.

/// A descriptor-cache view of a segment register. Attributes are in the VMCS format of SDM vol. 3, 26.4.1 (bits 7:0
/// type, S, DPL, P; bit 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Visible part.
    pub selector: u16,
    /// Hidden attributes.
    pub attributes: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Base linear address.
    pub base: u64,
}

impl Segment {
    /// Not to be used.
    pub const UNUSABLE: u32 = 1 << 16;
    const PRESENT: u32 = 1 << 7;

    /// With the 12-bit attributes of AMD-V and of Xen's records: what is not present there is not usable.
    pub const fn from_packed(selector: u16, attributes: u32, limit: u32, base: u64) -> Self {
        let unusable = if attributes & Self::PRESENT == 0 {
            Self::UNUSABLE
        } else {
            0
        };
        Self {
            selector,
            attributes: attributes & 0xFF | (attributes & 0xF00) << 4 | unusable,
            limit,
            base,
        }
    }

    /// The 12-bit attributes; none of what is not usable.
    pub const fn packed_attributes(&self) -> u32 {
        if self.is_usable() {
            self.attributes & 0xFF | self.attributes >> 4 & 0xF00
        } else {
            0
        }
    }

    /// Whether it can be used.
    pub const fn is_usable(&self) -> bool {
        self.attributes & Self::UNUSABLE == 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Base linear address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
}

/// The registers that an entry to the guest loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registers {
    /// General-purpose registers by their x86 encoding, the stack pointer in slot 4.
    pub general: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// DR0 to DR3.
    pub debug: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub efer: u64,
    /// Page-attribute table.
    pub pat: u64,
    /// Indexed by [`segment`].
    pub segments: [Segment; 8],
    pub gdtr: Table,
    pub idtr: Table,
    /// CS, ESP, EIP.
    pub sysenter: [u64; 3],
    /// What is loaded with CR3 in PAE mode: four entries of the table that it names. It follows from memory.
    pub directories: [u64; 4],
    pub msrs: Msrs,
}

/// MSRs that INIT leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Msrs {
    pub kernel_gs_base: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub syscall_mask: u64,
    pub tsc_aux: u64,
}

impl Registers {
    /// Whether long mode is active.
    pub const fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// Whether CR3 names a table of page directories.
    pub const fn has_directories(&self) -> bool {
        self.cr0 & cr0::PAGING != 0 && self.cr4 & cr4::PAE != 0 && !self.is_long()
    }
}

/// Places of segment registers, in the order of an `hvm_hw_cpu`.
#[allow(missing_docs)]
pub mod segment {
    pub const CS: usize = 0;
    pub const DS: usize = 1;
    pub const ES: usize = 2;
    pub const FS: usize = 3;
    pub const GS: usize = 4;
    pub const SS: usize = 5;
    pub const TR: usize = 6;
    pub const LDTR: usize = 7;
}

/// Bits of CR0.
#[allow(missing_docs)]
pub mod cr0 {
    pub const PROTECTED: u64 = 1 << 0;
    pub const EXTENSION_TYPE: u64 = 1 << 4;
    pub const WRITE_PROTECT: u64 = 1 << 16;
    pub const NOT_WRITE_THROUGH: u64 = 1 << 29;
    pub const CACHE_DISABLE: u64 = 1 << 30;
    pub const PAGING: u64 = 1 << 31;
    /// All that there are: the above, MP, EM, TS, NE, AM.
    pub const DEFINED: u64 =
        PAGING | CACHE_DISABLE | NOT_WRITE_THROUGH | 1 << 18 | WRITE_PROTECT | 0x3F;
}

/// Bits of CR4.
#[allow(missing_docs)]
pub mod cr4 {
    pub const PAGE_SIZE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MACHINE_CHECK: u64 = 1 << 6;
    pub const UMIP: u64 = 1 << 11;
    pub const FIVE_LEVELS: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    /// VME to OSXMMEXCPT but for MCE: every CPU that runs us has them.
    pub const FIRST: u64 = 0x7BF;
}

/// Bits of EFER.
#[allow(missing_docs)]
pub mod efer {
    pub const SYSCALL: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NO_EXECUTE: u64 = 1 << 11;
    pub const FAST_FXSR: u64 = 1 << 14;
    /// What every CPU that runs us has.
    pub const FIRST: u64 = SYSCALL | LME | LMA | NO_EXECUTE;
}

/// Bits of RFLAGS.
#[allow(missing_docs)]
pub mod rflags {
    pub const FIXED: u64 = 1 << 1;
    pub const INTERRUPT: u64 = 1 << 9;
    pub const VIRTUAL_8086: u64 = 1 << 17;
    pub const ALIGNMENT: u64 = 1 << 18;
    /// All but VM: CF to OF, IOPL, NT, RF, AC, VIF, VIP, ID.
    pub const DEFINED: u64 = 0x003D_7FD7;
}

/// Reset values (SDM vol. 3, table 10-1 and 12.12.4).
#[allow(missing_docs)]
pub mod reset {
    pub const DR6: u64 = 0xFFFF_0FF0;
    pub const DR7: u64 = 0x400;
    pub const PAT: u64 = 0x0007_0406_0007_0406;
}

/// Whether an address has 48 bits, extended by its sign.
pub const fn is_canonical(address: u64) -> bool {
    let high = address as i64 >> 47;
    high == 0 || high == -1
}
