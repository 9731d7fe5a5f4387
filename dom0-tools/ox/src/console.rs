//! Joins a guest's console to the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-].
pub const DETACH: u8 = 0x1D;

/// A terminal in raw mode, until this is dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn new(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // There is nobody left to tell if this fails.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Copies between the terminal and the console until the user types Ctrl-] or the console closes.
pub fn attach(tty: &str) -> io::Result<()> {
    let console = open(tty)?;
    let stdin = io::stdin();
    let interactive = stdin.is_terminal();
    if interactive {
        eprintln!("attached to {tty}; Ctrl-] detaches");
    }
    let raw = interactive.then(|| Raw::new(stdin.as_fd())).transpose()?;
    let result = relay(&console, stdin.as_fd(), &mut io::stdout());
    drop(raw);
    if interactive {
        eprintln!();
    }
    result
}

fn open(tty: &str) -> io::Result<File> {
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK).bits() as i32)
        .open(tty)?;
    if let Ok(mut settings) = tcgetattr(&console) {
        // The guest echoes; the pseudo terminal must not do it again.
        settings.make_raw();
        tcsetattr(&console, OptionalActions::Now, &settings)?;
    }
    Ok(console)
}

fn relay(console: &File, stdin: BorrowedFd<'_>, stdout: &mut dyn Write) -> io::Result<()> {
    let mut bytes = [0; 4096];
    // What was typed and the guest has not taken yet.
    let mut typed: Vec<u8> = Vec::new();
    let mut listening = true;
    loop {
        let mut interest = PollFlags::IN;
        interest.set(PollFlags::OUT, !typed.is_empty());
        // No reading ahead of a guest that does not read: the terminal holds the rest. What is not to be read is not polled
        // either, for its end would be told again and again.
        let hear = listening && typed.is_empty();
        let mut fds = [
            PollFd::new(console, interest),
            PollFd::from_borrowed_fd(stdin, PollFlags::IN),
        ];
        let polled = if hear { 2 } else { 1 };
        match poll(&mut fds[..polled], None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let (from_guest, from_user) = (fds[0].revents(), fds[1].revents());
        if from_guest.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match (&mut &*console).read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    stdout.write_all(&bytes[..count])?;
                    stdout.flush()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The daemon has closed its side: the domain is gone.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if from_guest.contains(PollFlags::OUT) {
            match (&mut &*console).write(&typed) {
                Ok(count) => {
                    typed.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if hear && from_user.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let count = rustix::io::read(stdin, &mut bytes)?;
            // Input from a file ends; the guest's output goes on.
            listening = count > 0;
            let input = &bytes[..count];
            match input.iter().position(|byte| *byte == DETACH) {
                Some(end) => {
                    let _ = (&mut &*console).write(&input[..end]);
                    return Ok(());
                }
                None => typed.extend_from_slice(input),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    use rustix::pipe::pipe;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// A writer that a test can read from.
    struct Sender(mpsc::Sender<Vec<u8>>);

    impl Write for Sender {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .send(bytes.to_vec())
                .map_err(|_| io::Error::other("closed"))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The daemon's end of a console, the user's keyboard and screen, and the relay between them.
    struct Session {
        daemon: File,
        keyboard: File,
        screen: mpsc::Receiver<Vec<u8>>,
        relay: std::thread::JoinHandle<io::Result<()>>,
    }

    fn session() -> io::Result<Session> {
        let daemon = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&daemon)?;
        unlockpt(&daemon)?;
        let name = ptsname(&daemon, Vec::new())?;
        let console = open(&name.to_string_lossy())?;
        let (stdin, keyboard): (OwnedFd, OwnedFd) = pipe()?;
        let (sender, screen) = mpsc::channel();
        let relay = std::thread::spawn(move || relay(&console, stdin.as_fd(), &mut Sender(sender)));
        Ok(Session {
            daemon: daemon.into(),
            keyboard: keyboard.into(),
            screen,
            relay,
        })
    }

    fn finish(relay: std::thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
        relay
            .join()
            .map_err(|_| io::Error::other("the relay panicked"))?
    }

    #[test]
    fn bytes_go_both_ways_until_the_user_detaches() -> io::Result<()> {
        let mut session = session()?;
        session.daemon.write_all(b"login: \r\n")?;
        assert_eq!(
            session.screen.recv().ok().as_deref(),
            Some(&b"login: \r\n"[..])
        );
        session.keyboard.write_all(b"root\r")?;
        let mut typed = [0; 5];
        session.daemon.read_exact(&mut typed)?;
        assert_eq!(&typed, b"root\r");
        session.keyboard.write_all(&[b'x', DETACH, b'y'])?;
        finish(session.relay)?;
        let mut last = [0; 8];
        let count = session.daemon.read(&mut last)?;
        assert_eq!(&last[..count], b"x");
        Ok(())
    }

    #[test]
    fn the_end_of_the_domain_ends_the_session() -> io::Result<()> {
        let mut session = session()?;
        session.daemon.write_all(b"reboot: Power down")?;
        assert!(session.screen.recv().is_ok());
        drop(session.daemon);
        finish(session.relay)
    }

    #[test]
    fn the_end_of_the_input_does_not_end_the_output() -> io::Result<()> {
        let mut session = session()?;
        drop(session.keyboard);
        session.daemon.write_all(b"still here")?;
        assert!(session.screen.recv().is_ok());
        drop(session.daemon);
        finish(session.relay)
    }
}
