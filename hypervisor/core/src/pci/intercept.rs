//! What dom0 may not reach directly: hidden functions, and the registers of the MSI capability.
//!
//! dom0's message address, data and enable bit are held here and told to the machine side, which alone programs the
//! device. Only one message is offered (Multiple Message Capable reads 0): several need a block of consecutive
//! vectors on one CPU, and drivers fall back to one. The MSI-X capability
//! reads as a null capability (ID 0) and cannot be enabled, since nothing here intercepts its table: drivers then use
//! MSI.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;

use super::{Access, PciConfig, Sbdf, Width, find_capability};

const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
/// MSI message control: enable; offered count; asked count; 64-bit address; per-vector mask (PCI Local Bus 3.0, 6.8.1.3).
const ENABLE: u16 = 1;
const OFFERED: u16 = 0x0E;
const ASKED: u16 = 0x70;
const WIDE: u16 = 1 << 7;
const MASKABLE: u16 = 1 << 8;

/// dom0's programming of a function's MSI capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msi {
    /// Message address as dom0 wrote it.
    pub address: u64,
    /// Message data as dom0 wrote it.
    pub data: u16,
    /// Whether the function is to signal.
    pub enabled: bool,
    /// Whether the one message is masked; always false where the function cannot mask.
    pub masked: bool,
}

/// What a write leads to on the machine side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing further.
    None,
    /// dom0's MSI state changed: program the capability at `capability` accordingly, with a host message.
    Msi {
        /// The function.
        sbdf: Sbdf,
        /// Offset of its MSI capability.
        capability: u16,
        /// The new state.
        msi: Msi,
    },
}

#[derive(Clone, Copy)]
struct Function {
    msi: Option<(u16, u16)>,
    msix: Option<u16>,
    state: Msi,
}

/// dom0's configuration space over the machine's.
#[derive(Default)]
pub struct VirtualPci {
    hidden: BTreeSet<Sbdf>,
    functions: BTreeMap<Sbdf, Function>,
}

impl VirtualPci {
    /// Hides a function that the hypervisor keeps: it reads as absent and ignores writes.
    pub fn hide(&mut self, sbdf: Sbdf) {
        self.hidden.insert(sbdf);
    }

    /// dom0 reads.
    pub fn read(&mut self, config: &mut impl PciConfig, access: Access) -> u32 {
        if self.hidden.contains(&access.sbdf) {
            return access.width.mask();
        }
        let mut value = config.read(access);
        if access.register < 0x40 || access.register > 0xFF {
            return value;
        }
        let Some(&mut function) = self.function(config, access.sbdf) else {
            return value;
        };
        for i in 0..access.width.bytes() {
            if let Some(byte) = function.byte(access.register + i, (value >> (8 * i)) as u8) {
                value = value & !(0xFF << (8 * i)) | u32::from(byte) << (8 * i);
            }
        }
        value
    }

    /// dom0 writes; bytes outside the kept registers go to the device, each once.
    pub fn write(&mut self, config: &mut impl PciConfig, access: Access, value: u32) -> Effect {
        let Access {
            sbdf,
            register,
            width,
        } = access;
        if self.hidden.contains(&sbdf) {
            return Effect::None;
        }
        if !(0x40..=0xFF).contains(&register) {
            config.write(access, value);
            return Effect::None;
        }
        let Some(function) = self.function(config, sbdf) else {
            config.write(access, value);
            return Effect::None;
        };
        let before = function.state;
        let bytes = 0..width.bytes();
        let kept = bytes
            .clone()
            .filter(|i| function.keeps(register + i))
            .count();
        if kept == 0 {
            config.write(access, value);
            return Effect::None;
        }
        for i in bytes {
            let (at, byte) = (register + i, (value >> (8 * i)) as u8);
            if function.keeps(at) {
                function.set(at, byte);
            } else {
                let access = Access {
                    sbdf,
                    register: at,
                    width: Width::Byte,
                };
                config.write(access, u32::from(byte));
            }
        }
        match function.msi {
            Some((capability, _)) if function.state != before => Effect::Msi {
                sbdf,
                capability,
                msi: function.state,
            },
            _ => Effect::None,
        }
    }

    /// Capabilities do not move, so they are looked up once; an absent function is not remembered, it may be plugged.
    fn function(&mut self, config: &mut impl PciConfig, sbdf: Sbdf) -> Option<&mut Function> {
        let vendor = Access {
            sbdf,
            register: 0,
            width: Width::Word,
        };
        if !self.functions.contains_key(&sbdf) && config.read(vendor) == 0xFFFF {
            return None;
        }
        Some(self.functions.entry(sbdf).or_insert_with(|| {
            let msi = find_capability(config, sbdf, MSI).map(|at| {
                let control = Access {
                    sbdf,
                    register: at + 2,
                    width: Width::Word,
                };
                (at, config.read(control) as u16)
            });
            Function {
                msi,
                msix: find_capability(config, sbdf, MSIX),
                state: Msi::default(),
            }
        }))
    }
}

/// A register of the MSI capability, by byte.
enum Register {
    Control(u16),
    Address(u16),
    Data(u16),
    Mask(u16),
}

impl Function {
    fn register(&self, at: u16) -> Option<Register> {
        let (base, control) = self.msi?;
        let data = if control & WIDE != 0 { 12 } else { 8 };
        let offset = at.checked_sub(base)?;
        match offset {
            2..=3 => Some(Register::Control(offset - 2)),
            4.. if offset < data => Some(Register::Address(offset - 4)),
            _ if offset == data || offset == data + 1 => Some(Register::Data(offset - data)),
            _ if control & MASKABLE != 0 && (data + 4..data + 8).contains(&offset) => {
                Some(Register::Mask(offset - data - 4))
            }
            _ => None,
        }
    }

    /// Whether the byte at `at` is held here. MSI-X: the byte with the enable and function-mask bits.
    fn keeps(&self, at: u16) -> bool {
        self.register(at).is_some() || self.msix.is_some_and(|base| at == base + 3)
    }

    /// What dom0 reads at `at` where the device gives `real`; `None` leaves it.
    fn byte(&self, at: u16, real: u8) -> Option<u8> {
        if self.msix.is_some_and(|base| at == base + 3) {
            return Some(real & 0x3F);
        }
        if self.msix == Some(at) {
            return Some(0);
        }
        let state = &self.state;
        let shifted = |value: u64, byte: u16| (value >> (8 * byte)) as u8;
        Some(match self.register(at)? {
            Register::Control(byte) => {
                let (_, control) = self.msi?;
                let control = control & !(ENABLE | OFFERED | ASKED) | u16::from(state.enabled);
                shifted(control.into(), byte)
            }
            Register::Address(byte) => shifted(state.address, byte),
            Register::Data(byte) => shifted(state.data.into(), byte),
            Register::Mask(byte) => shifted(state.masked.into(), byte),
        })
    }

    fn set(&mut self, at: u16, value: u8) {
        let state = self.state;
        let value = u64::from(value);
        match self.register(at) {
            Some(Register::Control(0)) => self.state.enabled = value & 1 != 0,
            Some(Register::Address(byte)) => {
                let merged = state.address & !(0xFF << (8 * byte)) | value << (8 * byte);
                self.state.address = merged & !3;
            }
            Some(Register::Data(byte)) => {
                let kept = state.data & !(0xFF << (8 * byte));
                self.state.data = kept | (value as u16) << (8 * byte);
            }
            Some(Register::Mask(0)) => self.state.masked = value & 1 != 0,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Device([u8; 256]);

    impl PciConfig for Device {
        fn read(&mut self, access: Access) -> u32 {
            let at = usize::from(access.register);
            (0..usize::from(access.width.bytes()))
                .fold(0, |value, i| value | u32::from(self.0[at + i]) << (8 * i))
        }
        fn write(&mut self, access: Access, value: u32) {
            for i in 0..usize::from(access.width.bytes()) {
                self.0[usize::from(access.register) + i] = (value >> (8 * i)) as u8;
            }
        }
    }

    /// MSI (64-bit, maskable, 8 messages) at 0x50, MSI-X at 0x70.
    fn device() -> Device {
        let mut space = [0; 256];
        space[0x06] = 0x10;
        space[0x34] = 0x50;
        space[0x50..0x54].copy_from_slice(&[MSI, 0x70, 0x86, 0x01]);
        space[0x70..0x74].copy_from_slice(&[MSIX, 0, 0x03, 0x00]);
        Device(space)
    }

    fn at(register: u16, width: Width) -> Access {
        Access {
            sbdf: Sbdf::default(),
            register,
            width,
        }
    }

    #[test]
    fn the_guests_message_is_kept_and_never_reaches_the_device() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        let before = device.0;
        pci.write(&mut device, at(0x54, Width::Dword), 0xFEE0_1000);
        pci.write(&mut device, at(0x58, Width::Dword), 1);
        pci.write(&mut device, at(0x5C, Width::Word), 0x4041);
        pci.write(&mut device, at(0x60, Width::Dword), 1);
        let effect = pci.write(&mut device, at(0x52, Width::Word), 0x31);
        let msi = Msi {
            address: 0x1_FEE0_1000,
            data: 0x4041,
            enabled: true,
            masked: true,
        };
        assert_eq!(
            effect,
            Effect::Msi {
                sbdf: Sbdf::default(),
                capability: 0x50,
                msi
            }
        );
        assert_eq!(device.0, before);
        assert_eq!(pci.read(&mut device, at(0x54, Width::Dword)), 0xFEE0_1000);
        assert_eq!(pci.read(&mut device, at(0x50, Width::Dword)), 0x0181_7005);
    }

    #[test]
    fn a_write_beside_the_data_register_reaches_the_device() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        pci.write(&mut device, at(0x5C, Width::Dword), 0xAABB_4041);
        assert_eq!(device.0[0x5C..0x60], [0, 0, 0xBB, 0xAA]);
    }

    #[test]
    fn msix_cannot_be_enabled_past_the_hypervisor() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        pci.write(&mut device, at(0x72, Width::Word), 0x8003);
        assert_eq!(device.0[0x73], 0);
        assert_eq!(pci.read(&mut device, at(0x70, Width::Byte)), 0);
        assert_eq!(pci.read(&mut device, at(0x72, Width::Word)), 0x0003);
    }

    #[test]
    fn a_hidden_function_reads_absent_and_ignores_writes() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        pci.hide(Sbdf::default());
        pci.write(&mut device, at(0x04, Width::Word), 7);
        assert_eq!(device.0[4], 0);
        assert_eq!(pci.read(&mut device, at(0, Width::Word)), 0xFFFF);
    }

    #[test]
    fn a_looped_capability_list_ends_the_walk() {
        let mut device = device();
        device.0[0x71] = 0x50;
        assert_eq!(find_capability(&mut device, Sbdf::default(), 0x10), None);
    }
}
