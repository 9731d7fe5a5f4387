//! Why a command failed, and the exit code that says so to scripts.

use std::io;

use oxen_config::{ConfigError, Errors, Places};

/// What `ox --help` says about exit codes. The numbers are a promise to scripts.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the hypervisor, xenstore or the system refused an operation
  2  wrong usage: unknown option, missing or impossible argument
  3  the configuration is wrong
  4  no such domain
  5  a domain of this name exists
  6  not implemented in this version
  7  hypervisor or xenstored cannot be reached
  8  a time limit ran out";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An operation was refused.
    #[error("cannot {action}: {error}")]
    Refused {
        /// What was tried, as in "pause domain 3".
        action: String,
        /// Why it did not work.
        error: String,
    },
    /// Output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// An argument cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong; all that is wrong, a line each.
    #[error("the configuration is wrong:\n{0}")]
    Config(#[from] Errors),
    /// The configuration cannot be read, or cannot be had on this machine.
    #[error("{0}")]
    ConfigUse(String),
    /// The value of a key cannot be had on this machine.
    #[error("{key}: {message}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Why not, and what to do.
        message: String,
        /// The exit code.
        code: u8,
    },
    /// The same, where it is known in which text the value stands.
    #[error("{0}")]
    Placed(ConfigError, u8),
    /// No domain has this name or number.
    #[error("no domain {0:?}; `ox list` shows all")]
    NoDomain(String),
    /// Another domain has the name.
    #[error(
        "the name {name:?} is taken by domain {domid}; choose another, or `ox destroy {domid}` first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        domid: u16,
    },
    /// A domain of this name is about to be started again.
    #[error(
        "the name {0:?} is taken by a domain that waits to be started again; `ox destroy {0}` ends that"
    )]
    NameWaits(String),
    /// This version cannot do it.
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// Hypervisor or xenstored cannot be reached.
    #[error("{what} cannot be reached: {error}")]
    Unreachable {
        /// "the hypervisor" or "xenstored".
        what: &'static str,
        /// Why, and what to look at.
        error: String,
    },
    /// A time limit ran out.
    #[error("{0}")]
    TimedOut(String),
    /// A failure after which something could not be undone.
    #[error("{failure}\nerror: and then could not undo it: {undo}")]
    NotUndone {
        /// The failure.
        failure: Box<Failure>,
        /// What was left behind.
        undo: String,
    },
}

impl Failure {
    /// Names the place of the setting that it is about, if it is about one that has a place.
    #[must_use]
    pub fn at(self, places: &Places) -> Self {
        match self {
            Failure::Setting { key, message, code } => match places.error(key, &message) {
                Some(error) => Failure::Placed(error, code),
                None => Failure::Setting { key, message, code },
            },
            Failure::NotUndone { failure, undo } => Failure::NotUndone {
                failure: Box::new(failure.at(places)),
                undo,
            },
            other => other,
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused { .. } | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Config(_) | Failure::ConfigUse(_) => 3,
            Failure::Setting { code, .. } | Failure::Placed(_, code) => *code,
            Failure::NoDomain(_) => 4,
            Failure::NameTaken { .. } | Failure::NameWaits(_) => 5,
            Failure::NotImplemented(_) => 6,
            Failure::Unreachable { .. } => 7,
            Failure::TimedOut(_) => 8,
            Failure::NotUndone { failure, .. } => failure.exit_code(),
        }
    }
}

/// Says what was tried when an operation fails.
pub trait Context<T> {
    /// `action` completes "cannot …".
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Failure> {
        // ENOSYS and EOPNOTSUPP: the hypervisor is older than the verb.
        const NOT_IMPLEMENTED: [i32; 2] = [38, 95];
        self.map_err(|error| match error.raw_os_error() {
            Some(number) if NOT_IMPLEMENTED.contains(&number) => Failure::NotImplemented(format!(
                "the hypervisor of this machine cannot {}",
                action()
            )),
            _ => Failure::Refused {
                action: action(),
                error: error.to_string(),
            },
        })
    }
}
