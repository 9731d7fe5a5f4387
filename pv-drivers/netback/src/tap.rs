//! TAP interfaces (`linux/if_tun.h`) and what makes them ports of a bridge (`linux/sockios.h`). All unsafe code of this crate
//! is here and in [`crate::arena`].

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrayvec::ArrayVec;
use oxen_config::vif::Mac;
use oxen_netif::transmit::SLOTS_MAX;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl, opcode};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::job::Guest;
use crate::machine::Interface;
use crate::vnet::{HEADER, Header};

/// What makes them.
pub const DEVICE: &str = "/dev/net/tun";
/// Where dom0's own use of each is set.
pub const SETTINGS: &str = "/proc/sys/net/ipv6/conf";
/// What the kernel says of all interfaces.
const INTERFACES: &str = "/sys/class/net";
/// Bytes of an interface's name, its end included (`IFNAMSIZ`).
const NAME: usize = 16;
/// The address of all interfaces that belong to guests, as Xen's scripts have it: the highest there is, so that no bridge takes it for its
/// own.
const ADDRESS: [u8; 6] = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_OFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFMTU: Opcode = 0x8922;
const SIOCSIFHWADDR: Opcode = 0x8924;
const SIOCBRADDIF: Opcode = 0x89A2;

/// `IFF_*` of a TAP interface.
const TAP: u16 = 0x0002;
const MULTI_QUEUE: u16 = 0x0100;
const NO_PACKET_INFORMATION: u16 = 0x1000;
const VNET_HEADER: u16 = 0x4000;
const EXCLUSIVE: u16 = 0x8000;
/// `TUN_F_*`.
const CHECKSUM: usize = 1;
const TSO4: usize = 2;
const TSO6: usize = 4;
/// `IFF_UP`.
const UP: u16 = 1;

/// `struct ifreq`: an interface's name and a union.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    value: [u8; 24],
}
const _: () = assert!(size_of::<Request>() == 40);

impl Request {
    fn new(name: &str, value: &[u8]) -> io::Result<Self> {
        if name.is_empty() || name.len() >= NAME || value.len() > 24 {
            let text = format!("{name:?} cannot be an interface's name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut request = Self {
            name: [0; NAME],
            value: [0; 24],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.value[..value.len()].copy_from_slice(value);
        Ok(request)
    }
}

/// Does what `OPCODE` does to an interface.
fn set<const OPCODE: Opcode>(fd: BorrowedFd<'_>, request: Request) -> io::Result<()> {
    const {
        assert!(matches!(
            OPCODE,
            SET_INTERFACE | SIOCSIFFLAGS | SIOCSIFMTU | SIOCSIFHWADDR | SIOCBRADDIF
        ));
    }
    // SAFETY: each of these reads (and may write) a `struct ifreq`.
    unsafe { ioctl(fd, Setter::<OPCODE, Request>::new(request)) }?;
    Ok(())
}

/// A queue of a TAP interface. The interface goes with the last of them.
#[derive(Debug)]
pub struct Queue {
    file: File,
}

/// Makes a TAP interface with so many queues, whose packets are such that the guest can take them.
///
/// # Errors
/// `ResourceBusy`: there is one of that name. Else: the module `tun` is not loaded, or no permission.
pub fn create(name: &str, queues: usize, guest: Guest) -> io::Result<Vec<Queue>> {
    let mut made = Vec::new();
    for nth in 0..queues {
        let file = (OpenOptions::new().read(true).write(true))
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(DEVICE)
            .map_err(|error| {
                let text = format!("{DEVICE}: {error}; the module tun must be loaded");
                io::Error::new(error.kind(), text)
            })?;
        let mut flags = TAP | NO_PACKET_INFORMATION | VNET_HEADER;
        if queues > 1 {
            flags |= MULTI_QUEUE;
        }
        if nth == 0 {
            // Not one that somebody else serves.
            flags |= EXCLUSIVE;
        }
        set::<SET_INTERFACE>(file.as_fd(), Request::new(name, &flags.to_ne_bytes())?)?;
        made.push(Queue { file });
    }
    if let Some(queue) = made.first() {
        let offload = offload(guest);
        // SAFETY: it takes a number.
        unsafe {
            ioctl(
                &queue.file,
                IntegerSetter::<SET_OFFLOAD>::new_usize(offload),
            )
        }?;
    }
    Ok(made)
}

/// What the kernel may leave to the guest.
fn offload(guest: Guest) -> usize {
    // What one of the two cannot take is completed here.
    if !guest.blank4 && !guest.blank6 {
        return 0;
    }
    let mut offload = CHECKSUM;
    if guest.scatter && guest.gso4 && guest.blank4 {
        offload |= TSO4;
    }
    if guest.scatter && guest.gso6 && guest.blank6 {
        offload |= TSO6;
    }
    offload
}

/// Whether there is a bridge of this name.
pub fn is_bridge(name: &str) -> bool {
    // A name is one word of a path: what is longer than an interface's is none.
    name.len() < NAME
        && !name.contains('/')
        && Path::new(INTERFACES).join(name).join("bridge").exists()
}

/// Makes an interface a port of a bridge, if there is to be one, and sets it going. Without an MTU of its own it has the bridge's, which would
/// sink to the interface's otherwise. Can be done again.
///
/// # Errors
/// There is no such interface or bridge, it is another one's port, or no permission.
pub fn join(name: &str, bridge: Option<&str>, mtu: Option<u32>) -> io::Result<()> {
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let control = control.as_fd();
    if !has_address(name) {
        let mut address = ETHERNET.to_ne_bytes().to_vec();
        address.extend(ADDRESS);
        set::<SIOCSIFHWADDR>(control, Request::new(name, &address)?)?;
    }
    // It is the guest's: dom0 itself has nothing to say on it.
    let own = format!("{SETTINGS}/{name}/disable_ipv6");
    if let Err(error) = std::fs::write(&own, "1") {
        log::debug!("{own}: {error}");
    }
    let set_mtu = |mtu: u32| set::<SIOCSIFMTU>(control, Request::new(name, &mtu.to_ne_bytes())?);
    let of_bridge = || fact(bridge?, "mtu")?.parse().ok();
    match (mtu, of_bridge()) {
        (Some(own), _) => set_mtu(own)?,
        (None, Some(mtu)) => {
            if let Err(error) = set_mtu(mtu) {
                log::warn!("interface {name} cannot have its bridge's MTU of {mtu}: {error}");
            }
        }
        (None, None) => {}
    }
    if let Some(bridge) = bridge {
        let index = netdevice::name_to_index(control, name)?;
        set::<SIOCBRADDIF>(control, Request::new(bridge, &index.to_ne_bytes())?)
            .or_else(|error| joined_already(name, bridge, error))
            .map_err(|error| io::Error::other(format!("bridge {bridge}: {error}")))?;
    }
    set::<SIOCSIFFLAGS>(control, Request::new(name, &UP.to_ne_bytes())?)
}

/// Whether an error says that there is no such interface.
pub fn is_absent(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NODEV)
}

/// What the kernel says of an interface.
fn fact(interface: &str, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(INTERFACES).join(interface).join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// Whether an interface has the address already: one that is at work may not be given any.
fn has_address(name: &str) -> bool {
    fact(name, "address").is_some_and(|address| address == Mac(ADDRESS).to_string())
}

/// The kernel says of another bridge's port that it is busy, too.
fn joined_already(name: &str, bridge: &str, error: io::Error) -> io::Result<()> {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Err(error);
    }
    if Path::new(INTERFACES)
        .join(bridge)
        .join("brif")
        .join(name)
        .exists()
    {
        return Ok(());
    }
    let text = format!(
        "interface {name} is a port of another bridge; `ip link set {name} nomaster` frees it"
    );
    Err(io::Error::new(error.kind(), text))
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<OwnedFd> for Queue {
    /// Any other descriptor that takes packets, with their headers, one at a time.
    fn from(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }
}

impl Interface for Queue {
    fn send(&mut self, header: &Header, first: &mut [u8], rest: &[&[u8]]) -> io::Result<()> {
        first[..HEADER].copy_from_slice(&header.encode());
        // Of one part, it takes the kernel less to be told so.
        if rest.is_empty() {
            rustix::io::write(&self.file, first)?;
            return Ok(());
        }
        let mut vectors: ArrayVec<IoSlice<'_>, SLOTS_MAX> = ArrayVec::new();
        vectors.push(IoSlice::new(first));
        vectors.extend(rest.iter().map(|part| IoSlice::new(part)));
        rustix::io::writev(&self.file, &vectors)?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Header, usize)>> {
        let read = match rustix::io::read(&self.file, &mut *buffer) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let size = read.checked_sub(HEADER);
        let header = buffer.first_chunk();
        let header = header.and_then(|header| Header::decode(*header).ok());
        match (header, size) {
            (Some(header), Some(size)) => Ok(Some((header, size))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_headers() {
        // TUNSETIFF and TUNSETOFFLOAD, as strace shows them.
        assert_eq!([SET_INTERFACE, SET_OFFLOAD], [0x4004_54CA, 0x4004_54D0]);
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        assert!(Request::new("vif3.0", &[]).is_ok());
        assert!(Request::new("fifteen-letters", &[]).is_ok());
        for wrong in ["", "sixteen-letters-"] {
            assert!(Request::new(wrong, &[]).is_err(), "{wrong:?}");
        }
        assert!(!is_bridge("../net/lo"));
    }

    #[test]
    fn the_kernel_leaves_to_a_guest_what_it_can_take() {
        let all = Guest {
            scatter: true,
            gso4: true,
            gso6: true,
            blank4: true,
            blank6: true,
            tells: true,
        };
        assert_eq!(offload(all), 7);
        let one_page = Guest {
            scatter: false,
            ..all
        };
        assert_eq!(offload(one_page), 1);
        let old = Guest {
            gso6: false,
            blank6: false,
            ..all
        };
        assert_eq!(offload(old), 3);
        let none = Guest {
            blank4: false,
            blank6: false,
            ..all
        };
        assert_eq!(offload(none), 0);
    }
}
