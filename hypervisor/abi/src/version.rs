//! `xen_version` (`public/version.h`, `public/features.h`).

/// 4.17, as major << 16 | minor.
pub const VERSION: u32 = 0x0004_0011;
/// What [`cmd::CAPABILITIES`] tells: the ABIs that guests may speak.
pub const CAPABILITIES: &str = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64";

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const VERSION: u64 = 0;
    pub const EXTRA_VERSION: u64 = 1;
    pub const COMPILE_INFO: u64 = 2;
    pub const CAPABILITIES: u64 = 3;
    pub const CHANGESET: u64 = 4;
    pub const PLATFORM_PARAMETERS: u64 = 5;
    pub const GET_FEATURES: u64 = 6;
    pub const PAGE_SIZE: u64 = 7;
    pub const GUEST_HANDLE: u64 = 8;
    pub const COMMAND_LINE: u64 = 9;
    pub const BUILD_ID: u64 = 10;
}

/// Feature bits of submap 0.
#[allow(missing_docs)]
pub mod feature {
    pub const WRITABLE_PAGE_TABLES: u32 = 1 << 0;
    pub const WRITABLE_DESCRIPTOR_TABLES: u32 = 1 << 1;
    pub const AUTO_TRANSLATED_PHYSMAP: u32 = 1 << 2;
    pub const HVM_CALLBACK_VECTOR: u32 = 1 << 8;
    pub const HVM_SAFE_PVCLOCK: u32 = 1 << 9;
    pub const HVM_PIRQS: u32 = 1 << 10;
    pub const DOM0: u32 = 1 << 11;
    pub const MEMORY_OP_VNODE: u32 = 1 << 13;
    pub const LINUX_RSDP_UNRESTRICTED: u32 = 1 << 15;
    pub const NOT_DIRECT_MAPPED: u32 = 1 << 16;
    pub const DIRECT_MAPPED: u32 = 1 << 17;
}
