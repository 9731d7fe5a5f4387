//! Configuration files of domains, in the syntax of xl.cfg(5).
//!
//! The way from text to a domain has three steps, each with its own module:
//!
//! 1. [`syntax`] reads text into a list of assignments that remember where they stood;
//! 2. [`settings`] applies `=` and `+=` in order, over the file and the words of the command line;
//! 3. [`domain`] checks each setting against the table of [`keys`] and gives a typed [`DomainConfig`].
//!
//! A key is never dropped in silence: it is honoured, refused with the reason, or reported in a [`Warning`] when it can have no effect on a PVH guest.
#![forbid(unsafe_code)]

pub mod cpulist;
pub mod disk;
pub mod domain;
pub mod error;
pub mod keys;
mod read;
pub mod settings;
pub mod syntax;
pub mod tools;
pub mod vif;

pub use cpulist::{CpuList, HostCpus};
pub use disk::DiskSpec;
pub use domain::{Action, Affinity, DomainConfig, Parsed, Places};
pub use error::{ConfigError, Errors, Warning};
pub use settings::Settings;
pub use tools::ToolsConfig;
pub use vif::VifSpec;

/// Reads the configuration of one domain: the text of a file named `source`, then the `key=value` words of the command line, which win.
///
/// # Errors
/// All that is wrong with the text, not only the first thing.
pub fn parse(source: &str, text: &str, overrides: &[String]) -> Result<Parsed, Errors> {
    let mut settings = Settings::default();
    let mut errors = Vec::new();
    match syntax::parse(source, text) {
        Ok(document) => errors.extend(settings.apply(document)),
        Err(found) => errors.extend(found.0),
    }
    for word in overrides {
        match syntax::parse_word(word) {
            Ok(document) => errors.extend(settings.apply(document)),
            Err(found) => errors.extend(found.0),
        }
    }
    if !errors.is_empty() {
        return Err(Errors(errors));
    }
    domain::from_settings(&settings)
}
