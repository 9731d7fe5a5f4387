//! `platform_op` (`public/platform.h`).

/// The header's second word must be this.
pub const INTERFACE_VERSION: u32 = 0x0300_0001;
/// Offset of the operation's own structure.
pub const BODY: u64 = 8;

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const SETTIME32: u32 = 17;
    pub const EFI_RUNTIME_CALL: u32 = 49;
    pub const FIRMWARE_INFO: u32 = 50;
    pub const ENTER_ACPI_SLEEP: u32 = 51;
    pub const GETIDLETIME: u32 = 53;
    pub const SET_PROCESSOR_PMINFO: u32 = 54;
    pub const GET_CPUINFO: u32 = 55;
    pub const CPU_ONLINE: u32 = 56;
    pub const CPU_OFFLINE: u32 = 57;
    pub const CPU_HOTADD: u32 = 58;
    pub const MEM_HOTADD: u32 = 59;
    pub const CORE_PARKING: u32 = 60;
    pub const RESOURCE_OP: u32 = 61;
    pub const SETTIME64: u32 = 62;
    pub const GET_SYMBOL: u32 = 63;
    /// Since 4.18.
    pub const GET_DOM0_CONSOLE: u32 = 64;
}

/// `video_type` of a VGA text screen in `dom0_vga_console_info`.
pub const VIDEO_TYPE_TEXT: u8 = 0x03;
/// `video_type` of a VESA linear framebuffer.
pub const VIDEO_TYPE_VESA: u8 = 0x23;
/// `video_type` of an EFI linear framebuffer.
pub const VIDEO_TYPE_EFI: u8 = 0x70;
/// `XEN_PCPU_FLAGS_ONLINE`.
pub const PCPU_ONLINE: u32 = 1;
/// `XEN_PCPU_FLAGS_INVALID`.
pub const PCPU_INVALID: u32 = 2;
