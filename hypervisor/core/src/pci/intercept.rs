//! What dom0 may not reach directly: hidden functions, and the registers of the MSI and MSI-X capabilities.
//!
//! dom0's message addresses, data and enable bits are held here and told to the machine side, which alone programs the
//! device. Only one MSI message is offered (Multiple Message Capable reads 0): several need a block of consecutive
//! vectors on one CPU, and drivers fall back to one.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;

use super::{Access, Message, Msix, PciConfig, Sbdf, Width, find_capability};

const MSI: u8 = 0x05;
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

impl Msi {
    /// The message, if the function is to signal it.
    pub fn message(&self) -> Option<Message> {
        (self.enabled && !self.masked).then_some(Message {
            address: self.address,
            data: self.data.into(),
        })
    }
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
    /// dom0 changed the control bits of the function's MSI-X.
    Msix(Sbdf),
    /// The function's MSI-X table may have moved, appeared or gone.
    Moved(Sbdf),
}

struct Function {
    msi: Option<(u16, u16)>,
    msix: Option<Msix>,
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

    /// The MSI-X of a function that has it and that dom0 has looked at.
    pub fn msix(&mut self, sbdf: Sbdf) -> Option<&mut Msix> {
        self.functions.get_mut(&sbdf)?.msix.as_mut()
    }

    /// Those functions.
    pub fn msix_functions(&self) -> impl Iterator<Item = Sbdf> {
        self.functions
            .iter()
            .filter(|(_, function)| function.msix.is_some())
            .map(|(&sbdf, _)| sbdf)
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
        let Some(function) = self.function(config, access.sbdf) else {
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
            let places = matches!(register, 0x04..0x06 | 0x10..0x28);
            let moved = places
                && self
                    .function(config, sbdf)
                    .is_some_and(|function| function.msix.is_some());
            return if moved {
                Effect::Moved(sbdf)
            } else {
                Effect::None
            };
        }
        let Some(function) = self.function(config, sbdf) else {
            config.write(access, value);
            return Effect::None;
        };
        let before = function.state;
        let control_before = function.msix.as_ref().map(Msix::control);
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
        if function.msix.as_ref().map(Msix::control) != control_before {
            return Effect::Msix(sbdf);
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
                msix: Msix::find(config, sbdf),
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

    /// Whether the byte at `at` is held here.
    fn keeps(&self, at: u16) -> bool {
        self.register(at).is_some() || self.is_msix_control(at)
    }

    fn is_msix_control(&self, at: u16) -> bool {
        self.msix
            .as_ref()
            .is_some_and(|msix| at == msix.control_register())
    }

    /// What dom0 reads at `at` where the device gives `real`; `None` leaves it.
    fn byte(&self, at: u16, real: u8) -> Option<u8> {
        if let Some(msix) = self.msix.as_ref().filter(|_| self.is_msix_control(at)) {
            return Some(real & !Msix::control_mask() | msix.control());
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
        if self.is_msix_control(at) {
            if let Some(msix) = &mut self.msix {
                msix.set_control(value);
            }
            return;
        }
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
    use crate::pci::testing::msi_and_msix as device;

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
    fn msix_is_enabled_only_by_the_machine_side() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        let effect = pci.write(&mut device, at(0x72, Width::Word), 0x8003);
        assert_eq!(effect, Effect::Msix(Sbdf::default()));
        assert_eq!(device.0[0x73], 0);
        assert_eq!(pci.read(&mut device, at(0x70, Width::Dword)), 0x8003_0011);
        let msix = pci.msix(Sbdf::default()).expect("it has been looked at");
        assert!(msix.enabled());
    }

    #[test]
    fn a_moved_bar_is_told() {
        let (mut device, mut pci) = (device(), VirtualPci::default());
        let effect = pci.write(&mut device, at(0x10, Width::Dword), 0xFEC0_0004);
        assert_eq!(effect, Effect::Moved(Sbdf::default()));
        assert_eq!(device.0[0x12], 0xC0);
        assert!(pci.msix_functions().eq([Sbdf::default()]));
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
