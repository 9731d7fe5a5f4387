//! `ox config`, and reading of configurations for `ox create`.

use std::io::Write;
use std::path::Path;

use oxen_config::keys::{KEYS, Treatment};
use oxen_config::{Parsed, parse};

use crate::cli::Config;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::{names, output, records};

/// Does `ox config`.
pub fn run(verb: Config, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Config::Show { domain } => show(&domain, host, out),
        Config::Check { file, settings } => load(&file, &settings).map(drop),
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

/// What a domain is made from, and made again from when it restarts.
fn show(word: &str, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let about = || format!("read the record of {word}");
    let directory = host.records();
    let record = match names::resolve(host, word) {
        Ok(state) => records::of_domain(&directory, state.domid, state.uuid).context(about)?,
        // One that waits to be started again has no number.
        Err(failure @ Failure::NoDomain(_)) => {
            let record = records::of_name(&directory, word).context(about)?;
            Some(record.ok_or(failure)?)
        }
        Err(failure) => return Err(failure),
    };
    let record = record.ok_or_else(|| Failure::Refused {
        action: format!("show the configuration of {word}"),
        error: "ox did not make it, so there is no record of it".to_owned(),
    })?;
    output::json(out, &record)
}

/// Reads a configuration; what has no effect goes to the log as warnings.
pub fn load(file: &Path, settings: &[String]) -> Result<Parsed, Failure> {
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
    Ok(parsed)
}
