//! The terminal as dom0's console.

use std::io::{self, Read};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::machine::{Outcome, Running};

/// Ctrl-]: the key that ends the run.
const QUIT: u8 = 0x1d;

/// How often to look whether the machine has stopped.
const POLL: Duration = Duration::from_millis(50);

/// Gives every key to the machine until it stops, or until the user ends the run (`None`).
///
/// # Errors
/// When standard input is not a terminal that can be set up.
pub(super) fn drive(running: &mut Running) -> io::Result<Option<Outcome>> {
    eprintln!(
        "console: Ctrl-] ends the run; Ctrl-A three times switches input between dom0 and the hypervisor's debug keys"
    );
    let _raw = RawMode::enter()?;
    let (sender, keys) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 256];
        // The end of input, or an error, drops the sender: the machine then runs on without keys.
        while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
            if sender.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    loop {
        if let Some(outcome) = running.poll_exit() {
            return Ok(Some(outcome));
        }
        match keys.recv_timeout(POLL) {
            Ok(bytes) => {
                let quit_at = bytes.iter().position(|&byte| byte == QUIT);
                // An emulator that has just ended takes no keys; the next look tells how it ended.
                let _ = running
                    .console()
                    .send(&bytes[..quit_at.unwrap_or(bytes.len())]);
                if quit_at.is_some() {
                    return Ok(None);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
        }
    }
}

/// The terminal with every key given through at once, and put back as it was when dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to do where even this fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
