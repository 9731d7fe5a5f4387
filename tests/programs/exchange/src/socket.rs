//! A packet socket of an interface, whose frames come and go with what is left to be done about them (`packet(7)`, `PACKET_VNET_HDR`;
//! `struct virtio_net_hdr` of `linux/virtio_net.h`). All unsafe code of this program is here.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::Duration;

/// Bytes of the header in front of each frame.
const HEADER: usize = 10;
/// Bits of its first byte, and of the second.
const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
/// Bytes of frames that wait to be read: a message in packets, with what the kernel needs for each.
const ROOM: libc::c_int = 4 << 20;

/// What is left to be done about a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Where the checksum begins to count, and its place from there on, where it is to be completed.
    pub checksum: Option<(u16, u16)>,
    /// Bytes of a TCP segment, where it is to be cut, and of the headers that go before each.
    pub segment: Option<(u16, u16)>,
}

/// A socket that hears and sends all frames of an interface.
pub struct Socket {
    file: File,
}

impl Socket {
    /// Of an interface, by its name.
    ///
    /// # Errors
    /// There is no such interface, or no permission.
    pub fn open(interface: &str) -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let fd = checked(fd)?;
        // SAFETY: a new descriptor, which nobody else has.
        let file = unsafe { File::from_raw_fd(fd) };
        set(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
        bind(fd, interface_index(interface)?)?;
        Ok(Self { file })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn send(&mut self, frame: &[u8], rest: Rest) -> io::Result<()> {
        let mut header = [0; HEADER];
        if let Some((start, place)) = rest.checksum {
            header[0] = NEEDS_CHECKSUM;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..].copy_from_slice(&place.to_ne_bytes());
        }
        if let Some((segment, headers)) = rest.segment {
            header[1] = GSO_TCPV4;
            header[2..4].copy_from_slice(&headers.to_ne_bytes());
            header[4..6].copy_from_slice(&segment.to_ne_bytes());
        }
        let sent = (self.file).write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)])?;
        if sent != HEADER + frame.len() {
            return Err(io::Error::other(format!(
                "{sent} bytes of a frame were sent"
            )));
        }
        Ok(())
    }

    /// Waits for a frame, so long at most; returns it, and whether its checksum is to be completed.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive<'a>(
        &mut self,
        bytes: &'a mut [u8],
        patience: Duration,
    ) -> io::Result<Option<(&'a [u8], bool)>> {
        let mut wanted = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one structure of a local variable.
        if checked(unsafe { libc::poll(&raw mut wanted, 1, milliseconds) })? == 0 {
            return Ok(None);
        }
        let length = self.file.read(bytes)?;
        let Some((header, frame)) = bytes[..length].split_at_checked(HEADER) else {
            return Ok(None);
        };
        let blank = header[0] & NEEDS_CHECKSUM != 0 || header[1] != GSO_NONE;
        Ok(Some((frame, blank)))
    }

    /// The interface's address.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn address(interface: &str) -> io::Result<String> {
        Ok(
            std::fs::read_to_string(format!("/sys/class/net/{interface}/address"))?
                .trim()
                .to_owned(),
        )
    }
}

fn interface_index(interface: &str) -> io::Result<i32> {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    text.trim().parse().map_err(io::Error::other)
}

fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: a local variable of that size, which is only read.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) };
    checked(result).map(drop)
}

fn bind(fd: RawFd, index: i32) -> io::Result<()> {
    const EVERYTHING: u16 = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: integers and an array of them, for which zeroes are values.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = EVERYTHING;
    address.sll_ifindex = index;
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: a local variable of that size, which is only read.
    checked(unsafe { libc::bind(fd, (&raw const address).cast(), size) }).map(drop)
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
