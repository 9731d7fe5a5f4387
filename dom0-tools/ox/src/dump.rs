//! Memory images of domains: where they go.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure};
use crate::host::Toolstack;

/// The directory that xl uses too.
pub const DIRECTORY: &str = "/var/lib/xen/dump";

/// Writes the memory of a domain to a file: `file`, or one that is named after the domain and the time. Gives the file's path.
pub fn dump(
    host: &mut dyn Toolstack,
    domid: u16,
    name: &str,
    file: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => {
            fs::create_dir_all(DIRECTORY).context(|| format!("create {DIRECTORY}"))?;
            let name = name.trim_start_matches('.');
            Path::new(DIRECTORY).join(format!("{name}-{}", stamp(host.unix_time())))
        }
    };
    let action = || format!("write the memory of domain {domid} to {}", path.display());
    host.xen()?.dump_core(domid, &path).context(action)?;
    Ok(path)
}

/// A time as part of a name, as xl writes it.
pub fn stamp(unix_time: u64) -> String {
    let time = i64::try_from(unix_time)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(
        || unix_time.to_string(),
        |time| time.strftime("%Y%m%dT%H%MZ").to_string(),
    )
}
