//! How a run ended: from the console's last words and from how the emulator left.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// How long the machine may stay on after it said that it powers off or resets.
const GRACE: Duration = Duration::from_secs(30);
/// How long to wait after a fatal last line, for what may follow it on the console.
const AFTERMATH: Duration = Duration::from_millis(300);

/// How a run ended. Everything but [`Outcome::PowerOff`] and [`Outcome::Reboot`] is a failure of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// dom0 asked for power-off, and the machine went off.
    PowerOff,
    /// dom0 asked for a reboot, and the machine was reset.
    Reboot,
    /// dom0 crashed.
    Crash(String),
    /// The hypervisor panicked.
    Panic(String),
    /// The hypervisor refused to boot.
    BootRefused(String),
    /// The run took longer than it may: a hang, or a limit that is too small.
    TimeLimit {
        /// The limit.
        limit: Duration,
        /// The console's last line by then.
        last_line: String,
    },
    /// The machine said that it goes off or resets, and did not.
    StillOn(LastWords),
    /// The emulator ended with no last words on the console: a triple fault, a reset out of nowhere, a fault of the emulator.
    EmulatorDied(String),
}

impl Outcome {
    /// A clean end: power-off or reboot.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::PowerOff | Self::Reboot)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "clean power-off"),
            Self::Reboot => write!(f, "clean reboot"),
            Self::Crash(cause) => write!(f, "dom0 crashed: {cause}"),
            Self::Panic(cause) => write!(f, "the hypervisor panicked: {cause}"),
            Self::BootRefused(cause) => write!(f, "the hypervisor refused to boot: {cause}"),
            Self::TimeLimit { limit, last_line } => {
                let seconds = limit.as_secs();
                write!(
                    f,
                    "time limit: still running after {seconds} s; the console's last line is {last_line:?}"
                )
            }
            Self::StillOn(last_words) => {
                write!(
                    f,
                    "hang: the machine said {last_words:?} but was still on {} s later",
                    GRACE.as_secs()
                )
            }
            Self::EmulatorDied(text) => write!(
                f,
                "the emulator ended with no last words on the console: {text}"
            ),
        }
    }
}

/// The one line that the hypervisor (or a bare Linux) ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastWords {
    /// dom0 asked for power-off.
    PowerOff,
    /// dom0 asked for a reboot.
    Reboot,
    /// dom0 crashed.
    Crash(String),
    /// The hypervisor panicked.
    Panic(String),
    /// The hypervisor refused to boot.
    BootRefused(String),
}

impl LastWords {
    /// Reads a console line. The mark need not start the line: dom0 may have left a prompt before it.
    pub fn of_hypervisor(line: &str) -> Option<Self> {
        let (_, words) = line.split_once("(oxen) STOP ")?;
        let words = words.trim_end();
        if let Some((kind, cause)) = words.split_once(": ") {
            let cause = cause.to_owned();
            return match kind {
                "crash" => Some(Self::Crash(cause)),
                "panic" => Some(Self::Panic(cause)),
                "boot" => Some(Self::BootRefused(cause)),
                _ => None,
            };
        }
        match words {
            "poweroff" => Some(Self::PowerOff),
            "reboot" => Some(Self::Reboot),
            _ => None,
        }
    }

    /// Reads the console of a Linux that runs with no hypervisor under it.
    pub fn of_linux(text: &str) -> Option<Self> {
        text.lines().rev().find_map(|line| {
            if line.contains("reboot: Power down") {
                Some(Self::PowerOff)
            } else if line.contains("reboot: Restarting system") {
                Some(Self::Reboot)
            } else {
                let (_, cause) = line.split_once("Kernel panic - not syncing: ")?;
                Some(Self::Crash(cause.trim_end().to_owned()))
            }
        })
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "poweroff"),
            Self::Reboot => write!(f, "reboot"),
            Self::Crash(cause) => write!(f, "crash: {cause}"),
            Self::Panic(cause) => write!(f, "panic: {cause}"),
            Self::BootRefused(cause) => write!(f, "boot: {cause}"),
        }
    }
}

/// What is known of a run at one moment.
pub(super) struct Evidence {
    pub last_words: Option<LastWords>,
    /// `None` for a bare Linux: its last words are only taken once the emulator has left.
    pub last_words_age: Option<Duration>,
    pub exit: Option<ExitStatus>,
    /// The machine has been reset after the last words.
    pub was_reset: bool,
}

/// What the evidence says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Running,
    Ended(Outcome),
    /// The emulator has ended with no last words; this is how.
    Died(String),
}

pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let age = evidence.last_words_age.unwrap_or_default();
    let off = evidence.exit.is_some();
    let Some(last_words) = &evidence.last_words else {
        return match evidence.exit {
            Some(status) => Verdict::Died(format!("{status}")),
            None => Verdict::Running,
        };
    };
    let (aftermath_over, ended) = match last_words {
        LastWords::PowerOff => (off, Outcome::PowerOff),
        LastWords::Reboot => (evidence.was_reset, Outcome::Reboot),
        LastWords::Crash(cause) => (off || age >= AFTERMATH, Outcome::Crash(cause.clone())),
        LastWords::Panic(cause) => (off || age >= AFTERMATH, Outcome::Panic(cause.clone())),
        LastWords::BootRefused(cause) => {
            (off || age >= AFTERMATH, Outcome::BootRefused(cause.clone()))
        }
    };
    if aftermath_over {
        Verdict::Ended(ended)
    } else if let Some(status) = evidence.exit {
        Verdict::Died(format!("{status} after {last_words:?}, with no reset"))
    } else if age >= GRACE {
        Verdict::Ended(Outcome::StillOn(last_words.clone()))
    } else {
        Verdict::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn evidence(last_words: Option<LastWords>, age: Duration, off: bool) -> Evidence {
        Evidence {
            last_words,
            last_words_age: Some(age),
            exit: off.then(|| ExitStatus::from_raw(0)),
            was_reset: false,
        }
    }

    #[test]
    fn each_stop_line_is_understood() {
        let parse = LastWords::of_hypervisor;
        assert_eq!(parse("(oxen) STOP poweroff\r\n"), Some(LastWords::PowerOff));
        assert_eq!(parse("(oxen) STOP reboot\r\n"), Some(LastWords::Reboot));
        assert_eq!(
            parse("(oxen) STOP crash: a: b\r\n"),
            Some(LastWords::Crash("a: b".into()))
        );
        assert_eq!(
            parse("dom0# (oxen) STOP panic: x\r\n"),
            Some(LastWords::Panic("x".into()))
        );
        assert_eq!(
            parse("(oxen) STOP boot: no SVM\n"),
            Some(LastWords::BootRefused("no SVM".into()))
        );
        assert_eq!(parse("(oxen) STOPPED\n"), None);
        assert_eq!(parse("(oxen) STOP something\n"), None);
    }

    #[test]
    fn power_off_needs_the_machine_to_be_off() {
        let said = || Some(LastWords::PowerOff);
        assert_eq!(
            judge(&evidence(said(), Duration::ZERO, false)),
            Verdict::Running
        );
        assert_eq!(
            judge(&evidence(said(), Duration::ZERO, true)),
            Verdict::Ended(Outcome::PowerOff)
        );
        assert_eq!(
            judge(&evidence(said(), GRACE, false)),
            Verdict::Ended(Outcome::StillOn(LastWords::PowerOff))
        );
    }

    #[test]
    fn a_reboot_needs_the_machine_to_be_reset() {
        let mut evidence = evidence(Some(LastWords::Reboot), Duration::ZERO, true);
        assert!(matches!(judge(&evidence), Verdict::Died(_)));
        evidence.was_reset = true;
        assert_eq!(judge(&evidence), Verdict::Ended(Outcome::Reboot));
    }

    #[test]
    fn a_crash_ends_the_run_though_the_machine_halts() {
        let said = Some(LastWords::Crash("oops".into()));
        assert_eq!(
            judge(&evidence(said, AFTERMATH, false)),
            Verdict::Ended(Outcome::Crash("oops".into()))
        );
    }

    #[test]
    fn an_emulator_that_leaves_in_silence_has_died() {
        assert!(matches!(
            judge(&evidence(None, Duration::ZERO, true)),
            Verdict::Died(_)
        ));
        assert_eq!(judge(&evidence(None, GRACE * 10, false)), Verdict::Running);
    }

    #[test]
    fn a_bare_linux_is_read_by_its_own_last_line() {
        let text = "[ 1.0] x\r\n[ 2.0] reboot: Power down\r\n";
        assert_eq!(LastWords::of_linux(text), Some(LastWords::PowerOff));
        assert_eq!(LastWords::of_linux("dom0# "), None);
    }
}
