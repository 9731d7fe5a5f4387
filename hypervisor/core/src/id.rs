//! Identifiers as distinct types.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number as an index into a table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A domain's number (`domid_t`); 0 is dom0, 0x7FF0 and above are reserved names.
    DomainId(u16),
    "d"
);
id!(
    /// A virtual CPU's number within its domain; also its ACPI processor UID.
    VcpuId(u16),
    "v"
);
id!(
    /// A physical CPU's number, counted by the hypervisor from 0 (the boot CPU).
    CpuId(u16),
    "cpu"
);
id!(
    /// An event channel port, local to one domain; 0 is never valid.
    Port(u32),
    "port"
);
id!(
    /// A grant reference, local to the granting domain.
    GrantRef(u32),
    "gref"
);
id!(
    /// The number of a grant that a domain has mapped, local to that domain.
    GrantHandle(u32),
    "handle"
);

impl DomainId {
    /// The control domain.
    pub const DOM0: Self = Self(0);
    /// Names the caller itself in a hypercall argument (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7FF0);
    /// Owner of the hypervisor's own frames (`DOMID_XEN`).
    pub const HYPERVISOR: Self = Self(0x7FF2);
    /// First reserved domain number (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: Self = Self(0x7FF0);
}
