//! `physdev_op` (`public/physdev.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const IRQ_STATUS_QUERY: u64 = 5;
    pub const EOI: u64 = 12;
    pub const MAP_PIRQ: u64 = 13;
    pub const UNMAP_PIRQ: u64 = 14;
    pub const MANAGE_PCI_ADD: u64 = 15;
    pub const MANAGE_PCI_REMOVE: u64 = 16;
    pub const RESTORE_MSI: u64 = 19;
    pub const MANAGE_PCI_ADD_EXT: u64 = 20;
    pub const SETUP_GSI: u64 = 21;
    pub const GET_FREE_PIRQ: u64 = 23;
    pub const PCI_MMCFG_RESERVED: u64 = 24;
    pub const PCI_DEVICE_ADD: u64 = 25;
    pub const PCI_DEVICE_REMOVE: u64 = 26;
    pub const RESTORE_MSI_EXT: u64 = 27;
    pub const DBGP_OP: u64 = 29;
    pub const PREPARE_MSIX: u64 = 30;
    pub const RELEASE_MSIX: u64 = 31;
}

/// Flags of an added device (`XEN_PCI_DEV_*`).
#[allow(missing_docs)]
pub mod device {
    pub const EXTFN: u32 = 1;
    pub const VIRTFN: u32 = 2;
    pub const PXM: u32 = 4;
}

/// `XEN_PCI_MMCFG_RESERVED`: the window is reserved by the firmware.
pub const MMCFG_RESERVED: u32 = 1;
