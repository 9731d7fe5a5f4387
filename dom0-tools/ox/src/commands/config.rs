//! `ox config`, and reading of configurations for `ox create`.

use std::io::Write;
use std::path::Path;

use oxen_config::keys::{KEYS, Treatment};
use oxen_config::{DomainConfig, parse};

use crate::cli::Config;
use crate::failure::Failure;
use crate::output;

/// Does `ox config`.
pub fn run(verb: Config, out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Config::Check { file, settings } => load(&file, &settings).map(|_| ()),
        Config::Keys(json) if json.json => output::json(out, &KEYS),
        Config::Keys(_) => {
            let rows = KEYS.iter().map(|key| {
                let (state, reason) = match key.treatment {
                    Treatment::Honoured => ("honoured", String::new()),
                    Treatment::Meaningless { reason } => {
                        ("no effect", format!("concerns {reason}"))
                    }
                    Treatment::Unsupported {
                        reason,
                        accepted: [],
                    } => ("unsupported", reason.to_owned()),
                    Treatment::Unsupported { reason, accepted } => (
                        "unsupported",
                        format!("{reason}; accepted: {}", accepted.join(", ")),
                    ),
                };
                vec![
                    key.name.to_owned(),
                    key.kind.to_string(),
                    state.to_owned(),
                    reason,
                ]
            });
            output::table(out, &["Key", "Takes", "State", "Why"], &[], rows)
        }
    }
}

/// Reads a configuration; what has no effect goes to the log as warnings.
pub fn load(file: &Path, settings: &[String]) -> Result<DomainConfig, Failure> {
    // Larger than any configuration: a disk named by mistake shall not be read whole.
    const LARGEST: u64 = 1 << 20;
    let name = file.display().to_string();
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::ConfigUse(format!("cannot read {name}: {error}"));
    let size = std::fs::metadata(file)
        .map_err(|error| unreadable(&error))?
        .len();
    if size > LARGEST {
        return Err(unreadable(&format!(
            "{size} bytes are too many for a configuration"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let parsed = parse(&name, &text, settings)?;
    for warning in &parsed.warnings {
        log::warn!("{warning}");
    }
    Ok(parsed.config)
}
