//! dom0's shell over a serial console on which others print too.
//!
//! A command's output is kept in a file in dom0 and then shown as base64, each line marked, with a hash of the whole. What the kernel or the
//! hypervisor prints in between falls outside of the marks, or breaks the hash; then the same file is shown once more.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xtask::machine::{Console, ConsoleError};

use crate::input::sha256;

/// What dom0's shell prints when it waits for a line.
const PROMPT: &str = "dom0# ";
/// How often a garbled output is asked for again.
const SHOW_TRIES: u32 = 4;

/// Shell functions, one a line: `oxen_run N COMMAND` runs, `oxen_show N` shows what the last one printed. The marks are put together at run
/// time, so that the shell's echo of these very lines holds none.
const FUNCTIONS: &[&str] = &[
    "oxen_show() { echo; echo \"@@\"\"BEGIN $1 $oxen_s $(sha256sum </tmp/.oxen)\"; base64 /tmp/.oxen | sed \"s/^/@@$1:/\"; echo \"@@\"\"END $1 \"; }",
    "oxen_run() { eval \"$2\" >/tmp/.oxen 2>&1 </dev/null; oxen_s=$?; oxen_show $1; }",
];

/// What a command printed (both streams) and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status.
    pub status: i32,
    /// The text.
    pub text: String,
}

/// Why a command gave no output.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The console ended, or time was over.
    #[error("dom0's shell, {doing}: {source}{hypervisor}")]
    Console {
        /// What was under way.
        doing: String,
        /// What the console says.
        source: ConsoleError,
        /// What the hypervisor says of everybody, where time was over.
        hypervisor: String,
    },
    /// The output was garbled each time it was shown.
    #[error(
        "dom0's shell: the output of `{0}` was garbled {SHOW_TRIES} times: something prints on the console without pause"
    )]
    Garbled(String),
}

/// A shell that takes commands.
pub struct Shell<'a> {
    console: &'a mut Console,
    limit: Duration,
    marker: u32,
}

impl<'a> Shell<'a> {
    /// Waits for the prompt and readies the shell. `limit` holds for this and for each command.
    ///
    /// # Errors
    /// When the prompt does not come in time.
    pub fn open(console: &'a mut Console, limit: Duration) -> Result<Self, ShellError> {
        let mut shell = Self::resume(console, limit, 0);
        shell.expect(PROMPT, "waiting for the first prompt")?;
        for line in FUNCTIONS {
            shell.send(line)?;
        }
        shell.run("true")?;
        Ok(shell)
    }

    /// A shell that was opened before; `marker` is from [`Shell::into_marker`].
    pub fn resume(console: &'a mut Console, limit: Duration, marker: u32) -> Self {
        Self {
            console,
            limit,
            marker,
        }
    }

    /// What [`Shell::resume`] needs.
    pub fn into_marker(self) -> u32 {
        self.marker
    }

    /// Runs a command line in the shell itself, so that variables and functions last.
    ///
    /// # Errors
    /// When it does not end in time, the machine stops, or the console is too noisy.
    pub fn run(&mut self, command: &str) -> Result<Output, ShellError> {
        self.marker += 1;
        self.send(&format!("oxen_run {} {}", self.marker, quote(command)))?;
        for _ in 0..SHOW_TRIES {
            let shown = self.expect(
                &format!("@@END {} ", self.marker),
                &format!("running `{command}`"),
            )?;
            if let Some(output) = parse(&shown, self.marker) {
                return Ok(output);
            }
            self.marker += 1;
            self.send(&format!("oxen_show {}", self.marker))?;
        }
        Err(ShellError::Garbled(command.to_owned()))
    }

    fn send(&mut self, line: &str) -> Result<(), ShellError> {
        self.console
            .send_line(line)
            .map_err(|source| ShellError::Console {
                doing: format!("sending `{line}`"),
                source,
                hypervisor: String::new(),
            })
    }

    fn expect(&mut self, pattern: &str, doing: &str) -> Result<String, ShellError> {
        self.console.expect(pattern, self.limit).map_err(|source| {
            let hypervisor = match source {
                ConsoleError::TimedOut { .. } => match self.console.ask_hypervisor() {
                    said if said.is_empty() => "the hypervisor does not answer\n".to_owned(),
                    said => format!("the hypervisor says:\n{said}"),
                },
                _ => String::new(),
            };
            ShellError::Console {
                doing: doing.to_owned(),
                source,
                hypervisor,
            }
        })
    }
}

/// Finds the output in what was shown; `None` where noise has garbled it.
fn parse(shown: &str, marker: u32) -> Option<Output> {
    let begin = format!("@@BEGIN {marker} ");
    let data = format!("@@{marker}:");
    let header = shown
        .lines()
        .find_map(|line| Some(line.split_once(&begin)?.1))?;
    let mut header = header.split_whitespace();
    let status = header.next()?.parse().ok()?;
    let hash = header.next()?;
    let encoded: String = shown
        .lines()
        .filter_map(|line| Some(line.split_once(&data)?.1.trim_end()))
        .collect();
    let bytes = STANDARD.decode(encoded).ok()?;
    (sha256(&bytes) == hash).then(|| Output {
        status,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

fn quote(command: &str) -> String {
    format!("'{}'", command.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "hi\n" as `sha256sum` and `base64` show it, exit status 3.
    const SHOWN: &str = "noise\r\n@@BEGIN 7 3 HASH  -\r\n@@7:aGkK\r\n@@END 7 ";

    fn shown() -> String {
        SHOWN.replace("HASH", &sha256(b"hi\n"))
    }

    #[test]
    fn noise_on_lines_of_its_own_does_no_harm() {
        let noisy = shown().replace("@@7:", "(oxen) debug\r\n[ 1.0] kernel @@7:");
        let output = parse(&noisy, 7).expect("parsed");
        assert_eq!((output.status, output.text.as_str()), (3, "hi\n"));
    }

    #[test]
    fn noise_within_the_output_is_noticed() {
        assert_eq!(parse(&shown().replace("aGkK", "aG(oxen) xkK"), 7), None);
        assert_eq!(parse(&shown().replace("aGkK", ""), 7), None);
        assert_eq!(parse(&shown(), 8), None);
    }

    #[test]
    fn quotes_in_a_command_survive() {
        assert_eq!(quote("echo 'a'"), r"'echo '\''a'\'''");
    }
}
