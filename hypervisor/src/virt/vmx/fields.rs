//! VMCS field encodings (SDM vol. 3, appendix B). The type tells the width.

macro_rules! fields {
    ($($name:ident = $value:literal),* $(,)?) => {
        /// A field of the VMCS.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Field {
            $($name = $value),*
        }
    };
}

fields! {
    Vpid = 0x0000,
    GuestEsSelector = 0x0800,
    GuestCsSelector = 0x0802,
    GuestSsSelector = 0x0804,
    GuestDsSelector = 0x0806,
    GuestFsSelector = 0x0808,
    GuestGsSelector = 0x080A,
    GuestLdtrSelector = 0x080C,
    GuestTrSelector = 0x080E,
    HostEsSelector = 0x0C00,
    HostCsSelector = 0x0C02,
    HostSsSelector = 0x0C04,
    HostDsSelector = 0x0C06,
    HostFsSelector = 0x0C08,
    HostGsSelector = 0x0C0A,
    HostTrSelector = 0x0C0C,
    PortBitmapA = 0x2000,
    PortBitmapB = 0x2002,
    MsrBitmap = 0x2004,
    TscOffset = 0x2010,
    VirtualApicPage = 0x2012,
    EptPointer = 0x201A,
    GuestPhysicalAddress = 0x2400,
    LinkPointer = 0x2800,
    GuestPat = 0x2804,
    GuestEfer = 0x2806,
    HostPat = 0x2C00,
    HostEfer = 0x2C02,
    PinControls = 0x4000,
    ProcessorControls = 0x4002,
    ExceptionBitmap = 0x4004,
    ExitControls = 0x400C,
    EntryControls = 0x4012,
    EntryInterruption = 0x4016,
    EntryErrorCode = 0x4018,
    EntryInstructionLength = 0x401A,
    TprThreshold = 0x401C,
    SecondaryControls = 0x401E,
    PauseLoopGap = 0x4020,
    PauseLoopWindow = 0x4022,
    InstructionError = 0x4400,
    ExitReason = 0x4402,
    ExitInterruption = 0x4404,
    VectoringInformation = 0x4408,
    VectoringErrorCode = 0x440A,
    ExitInstructionLength = 0x440C,
    GuestEsLimit = 0x4800,
    GuestCsLimit = 0x4802,
    GuestSsLimit = 0x4804,
    GuestDsLimit = 0x4806,
    GuestFsLimit = 0x4808,
    GuestGsLimit = 0x480A,
    GuestLdtrLimit = 0x480C,
    GuestTrLimit = 0x480E,
    GuestGdtrLimit = 0x4810,
    GuestIdtrLimit = 0x4812,
    GuestEsRights = 0x4814,
    GuestCsRights = 0x4816,
    GuestSsRights = 0x4818,
    GuestDsRights = 0x481A,
    GuestFsRights = 0x481C,
    GuestGsRights = 0x481E,
    GuestLdtrRights = 0x4820,
    GuestTrRights = 0x4822,
    GuestInterruptibility = 0x4824,
    GuestActivity = 0x4826,
    GuestSysenterCs = 0x482A,
    PreemptionTimer = 0x482E,
    HostSysenterCs = 0x4C00,
    Cr0Mask = 0x6000,
    Cr4Mask = 0x6002,
    Cr0Shadow = 0x6004,
    Cr4Shadow = 0x6006,
    ExitQualification = 0x6400,
    GuestCr0 = 0x6800,
    GuestCr3 = 0x6802,
    GuestCr4 = 0x6804,
    GuestEsBase = 0x6806,
    GuestCsBase = 0x6808,
    GuestSsBase = 0x680A,
    GuestDsBase = 0x680C,
    GuestFsBase = 0x680E,
    GuestGsBase = 0x6810,
    GuestLdtrBase = 0x6812,
    GuestTrBase = 0x6814,
    GuestGdtrBase = 0x6816,
    GuestIdtrBase = 0x6818,
    GuestDr7 = 0x681A,
    GuestRsp = 0x681C,
    GuestRip = 0x681E,
    GuestRflags = 0x6820,
    GuestPendingDebug = 0x6822,
    GuestSysenterEsp = 0x6824,
    GuestSysenterEip = 0x6826,
    HostCr0 = 0x6C00,
    HostCr3 = 0x6C02,
    HostCr4 = 0x6C04,
    HostFsBase = 0x6C06,
    HostGsBase = 0x6C08,
    HostTrBase = 0x6C0A,
    HostGdtrBase = 0x6C0C,
    HostIdtrBase = 0x6C0E,
    HostSysenterEsp = 0x6C10,
    HostSysenterEip = 0x6C12,
    HostRsp = 0x6C14,
    HostRip = 0x6C16,
}

/// Selector, limit, access rights and base of a guest segment register.
pub type SegmentFields = (Field, Field, Field, Field);

/// ES, CS, SS, DS, FS, GS.
pub const SEGMENTS: [SegmentFields; 6] = [
    (
        Field::GuestEsSelector,
        Field::GuestEsLimit,
        Field::GuestEsRights,
        Field::GuestEsBase,
    ),
    (
        Field::GuestCsSelector,
        Field::GuestCsLimit,
        Field::GuestCsRights,
        Field::GuestCsBase,
    ),
    (
        Field::GuestSsSelector,
        Field::GuestSsLimit,
        Field::GuestSsRights,
        Field::GuestSsBase,
    ),
    (
        Field::GuestDsSelector,
        Field::GuestDsLimit,
        Field::GuestDsRights,
        Field::GuestDsBase,
    ),
    (
        Field::GuestFsSelector,
        Field::GuestFsLimit,
        Field::GuestFsRights,
        Field::GuestFsBase,
    ),
    (
        Field::GuestGsSelector,
        Field::GuestGsLimit,
        Field::GuestGsRights,
        Field::GuestGsBase,
    ),
];
/// The local descriptor table register.
pub const LDTR: SegmentFields = (
    Field::GuestLdtrSelector,
    Field::GuestLdtrLimit,
    Field::GuestLdtrRights,
    Field::GuestLdtrBase,
);
/// The task register.
pub const TR: SegmentFields = (
    Field::GuestTrSelector,
    Field::GuestTrLimit,
    Field::GuestTrRights,
    Field::GuestTrBase,
);
