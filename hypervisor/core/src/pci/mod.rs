//! dom0's view of PCI configuration space: which function and register an access names, and what is kept from it.
//!
//! The real configuration accesses are behind [`PciConfig`]; this module holds no port or memory access.

mod intercept;
mod msix;

pub use intercept::{Effect, Msi, VirtualPci};
pub use msix::Msix;

use core::fmt;

/// A PCI function: segment, bus, device and function numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sbdf {
    /// The segment group (of the MCFG table); 0 is the one that ports 0xCF8 and 0xCFC reach.
    pub segment: u16,
    /// Bus in bits 15:8, device in bits 7:3, function in bits 2:0.
    pub bdf: u16,
}

impl fmt::Debug for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) = (self.bdf >> 8, (self.bdf >> 3) & 0x1F, self.bdf & 7);
        write!(f, "{:04x}:{bus:02x}:{device:02x}.{function}", self.segment)
    }
}

/// How many bytes a configuration access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One.
    Byte,
    /// Two.
    Word,
    /// Four.
    Dword,
}

impl Width {
    /// From a count of bytes; others than 1, 2 and 4 are `None`.
    pub const fn from_bytes(bytes: u8) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// The count of bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits of a value of this width.
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - 8 * self.bytes())
    }
}

/// A checked configuration access: naturally aligned, inside the function's 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The function.
    pub sbdf: Sbdf,
    /// First byte.
    pub register: u16,
    /// Bytes moved.
    pub width: Width,
}

impl Access {
    /// From port 0xCF8's value and an access to `port` (0xCFC to 0xCFF), PCI Local Bus 3.0, 3.2.2.3.2.
    ///
    /// `None` where the enable bit is clear or the access is not aligned: it then reads all ones.
    pub fn from_ports(address: u32, port: u16, width: Width) -> Option<Self> {
        let byte = port.checked_sub(0xCFC).filter(|&byte| byte < 4)?;
        let register = (address & 0xFC) as u16 | byte;
        let sbdf = Sbdf {
            segment: 0,
            bdf: (address >> 8) as u16,
        };
        (address >> 31 == 1).then_some(())?;
        Self::aligned(sbdf, register, width)
    }

    /// From an offset in the memory-mapped window of `segment` that begins at `first_bus` (PCI Express 5.0, 7.2.2).
    ///
    /// `None` where the bus would be above 255 or the access is not aligned.
    pub fn from_window(segment: u16, first_bus: u8, offset: u64, width: Width) -> Option<Self> {
        let function = offset >> 12;
        let bdf = u16::try_from(function.checked_add(u64::from(first_bus) << 8)?).ok()?;
        Self::aligned(Sbdf { segment, bdf }, (offset & 0xFFF) as u16, width)
    }

    /// To a function's vendor ID, which is all ones where there is none.
    pub const fn vendor(sbdf: Sbdf) -> Self {
        Self {
            sbdf,
            register: 0,
            width: Width::Word,
        }
    }

    fn aligned(sbdf: Sbdf, register: u16, width: Width) -> Option<Self> {
        register.is_multiple_of(width.bytes()).then_some(Self {
            sbdf,
            register,
            width,
        })
    }
}

/// A message-signalled interrupt: the write that the device does (SDM vol. 3, 11.11; APM vol. 2, 16.13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// The machine's configuration space.
pub trait PciConfig {
    /// Reads; all ones (of the width) where there is no such function.
    fn read(&mut self, access: Access) -> u32;
    /// Writes the low bytes of `value`.
    fn write(&mut self, access: Access, value: u32);
}

/// Offset of the first capability with `id` (PCI Local Bus 3.0, 6.7), or `None`.
///
/// The walk ends after 48 steps, as many as fit in a function's space, so a device with a looped list cannot hold us.
pub fn find_capability(config: &mut impl PciConfig, sbdf: Sbdf, id: u8) -> Option<u16> {
    let mut read = |register, width| {
        config.read(Access {
            sbdf,
            register,
            width,
        })
    };
    let status = read(0x06, Width::Word);
    if status == 0xFFFF || status & 0x10 == 0 {
        return None;
    }
    let mut at = read(0x34, Width::Byte) as u16 & 0xFC;
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        let header = read(at, Width::Word);
        if header & 0xFF == u32::from(id) {
            return Some(at);
        }
        at = (header >> 8) as u16 & 0xFC;
    }
    None
}

#[cfg(test)]
mod testing {
    use super::{Access, PciConfig};

    /// A function's first 256 bytes, every one writable.
    pub struct Device(pub [u8; 256]);

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

    /// MSI (64-bit, maskable, 8 messages) at 0x50; MSI-X at 0x70 with 4 entries at 0x2000 of the 64-bit BAR 0.
    pub fn msi_and_msix() -> Device {
        let mut space = [0; 256];
        space[0x06] = 0x10;
        space[0x10..0x18].copy_from_slice(&0x1_FEB0_0004u64.to_le_bytes());
        space[0x34] = 0x50;
        space[0x50..0x54].copy_from_slice(&[0x05, 0x70, 0x86, 0x01]);
        space[0x70..0x78].copy_from_slice(&[0x11, 0, 0x03, 0x00, 0, 0x20, 0, 0]);
        Device(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_name_a_function_only_when_enabled_and_aligned() {
        let access = Access::from_ports(0x8001_2344, 0xCFE, Width::Word).expect("a valid access");
        assert_eq!((access.sbdf.bdf, access.register), (0x0123, 0x46));
        assert_eq!(Access::from_ports(0x0001_2344, 0xCFC, Width::Dword), None);
        assert_eq!(Access::from_ports(0x8001_2344, 0xCFD, Width::Word), None);
        assert_eq!(Access::from_ports(0x8001_2344, 0xCF8, Width::Dword), None);
    }

    #[test]
    fn the_window_names_a_function_from_its_first_bus() {
        let access = Access::from_window(1, 0x80, 0x10_8100, Width::Dword).expect("a valid access");
        assert_eq!(std::format!("{}", access.sbdf), "0001:81:01.0");
        assert_eq!(access.register, 0x100);
        assert_eq!(Access::from_window(0, 0x80, 0x800_0000, Width::Byte), None);
        assert_eq!(Access::from_window(0, 0, 0x102, Width::Dword), None);
    }
}
