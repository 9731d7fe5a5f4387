//! Lines from a pipe, run one by one in dom0's shell.

use std::io::BufRead;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::machine::{ConsoleError, Outcome, Running};

/// What dom0's shell prints when it waits for a line.
pub(super) const PROMPT: &str = "dom0# ";

/// How often to look whether the machine has stopped while the script is silent.
const POLL: Duration = Duration::from_millis(100);
/// How long to wait for the end once the console has ended; past the machine's own limit it does not wait.
const LINGER: Duration = Duration::from_secs(60);
/// A wait with no limit of its own: the machine's limit, if it has one, is shorter.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);

/// Feeds `script` to dom0's shell, each line once its prompt is there; at the end of the script powers dom0 off, unless the script did.
/// Returns how the run ended.
pub(super) fn drive(
    running: &mut Running,
    script: impl BufRead + Send + 'static,
) -> Option<Outcome> {
    let lines = read_lines(script);
    loop {
        let limit = running.time_left().unwrap_or(LONG);
        match running.console().expect(PROMPT, limit) {
            Ok(_) => {}
            // Stopped, closed, or out of time: which of them, the outcome says.
            Err(_) => return Some(running.wait_exit(LINGER)),
        }
        let line = match next_line(running, &lines) {
            Next::Line(line) => line,
            Next::EndOfScript => "poweroff".into(),
            Next::Stopped(outcome) => return Some(outcome),
        };
        if let Err(error) = send_and_see_echo(running, &line) {
            // The machine may have stopped just now, which is for the outcome to tell.
            let outcome = running.wait_exit(LINGER);
            eprintln!("{error}");
            return Some(outcome);
        }
    }
}

enum Next {
    Line(String),
    EndOfScript,
    Stopped(Outcome),
}

/// Reads on a thread of its own: a script that comes slowly must not hide that the machine has stopped.
fn read_lines(script: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in script.lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn next_line(running: &mut Running, lines: &Receiver<String>) -> Next {
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => return Next::Line(line),
            Err(RecvTimeoutError::Disconnected) => return Next::EndOfScript,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(outcome) = running.poll_exit() {
                    return Next::Stopped(outcome);
                }
            }
        }
    }
}

/// The shell echoes the line up to its end; only what comes after is the answer, and only a prompt in there is the next one.
fn send_and_see_echo(running: &mut Running, line: &str) -> Result<(), ConsoleError> {
    running.console().send_line(line)?;
    let limit = running
        .time_left()
        .unwrap_or(LONG)
        .min(Duration::from_secs(60));
    match running.console().expect("\n", limit) {
        // With the echo off there is none to wait for.
        Err(ConsoleError::TimedOut { .. }) => Ok(()),
        Err(ConsoleError::Stopped { .. } | ConsoleError::Closed { .. }) => Ok(()),
        other => other.map(drop),
    }
}
