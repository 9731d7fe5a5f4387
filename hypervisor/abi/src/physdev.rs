//! `physdev_op` (`public/physdev.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const PCI_MMCFG_RESERVED: u64 = 24;
    pub const PCI_DEVICE_ADD: u64 = 25;
    pub const PCI_DEVICE_REMOVE: u64 = 26;
}
