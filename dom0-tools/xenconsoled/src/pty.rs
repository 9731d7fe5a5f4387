//! The pseudo-terminal that `ox console` attaches to.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A pty in raw mode; neither end blocks the daemon.
#[derive(Debug)]
pub struct Pty {
    master: File,
    /// Kept open: without any open slave the master would report a hang-up for ever.
    _slave: OwnedFd,
    name: String,
}

impl Pty {
    /// Opens a new one.
    ///
    /// # Errors
    /// No more ptys, or no devpts.
    pub fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?
            .into_string()
            .map_err(|_| io::ErrorKind::InvalidData)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_str(), flags, Mode::empty())?;
        let mut attributes = tcgetattr(&slave)?;
        attributes.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &attributes)?;
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK)?;
        Ok(Self {
            master: master.into(),
            _slave: slave,
            name,
        })
    }

    /// Path of the slave, for who attaches.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes what it takes; how much.
    ///
    /// # Errors
    /// The pty's; never `WouldBlock`.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        none_if_blocked((&self.master).write(bytes))
    }

    /// Reads what was typed; how much.
    ///
    /// # Errors
    /// The pty's; never `WouldBlock`.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        none_if_blocked((&self.master).read(bytes))
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

fn none_if_blocked(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_raw_and_never_block() {
        let pty = Pty::open().expect("a pty");
        let mut slave = File::options()
            .read(true)
            .write(true)
            .open(pty.name())
            .expect("its slave");
        let mut bytes = [0; 16];
        assert_eq!(pty.read(&mut bytes).expect("nothing typed"), 0);
        assert_eq!(pty.write(b"a\nb\r").expect("room"), 4);
        assert_eq!(slave.read(&mut bytes).expect("what was written"), 4);
        assert_eq!(&bytes[..4], b"a\nb\r");
        slave.write_all(b"\x03x\r").expect("room");
        assert_eq!(pty.read(&mut bytes).expect("what was typed"), 3);
        assert_eq!(&bytes[..3], b"\x03x\r");
    }

    #[test]
    fn without_a_reader_it_takes_a_bounded_amount() {
        let pty = Pty::open().expect("a pty");
        let mut taken = 0;
        while taken < 10 << 20 {
            match pty.write(&[b'x'; 4096]).expect("no error") {
                0 => return,
                count => taken += count,
            }
        }
        panic!("{taken} bytes and no end");
    }
}
