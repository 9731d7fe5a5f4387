//! `ox store`.

use std::io::Write;

use crate::cli::Store;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;

/// Does `ox store`.
pub fn run(verb: &Store, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Store::Ls { path } => {
            known(path, host)?;
            list(path, host, out)
        }
        Store::Read { path } => {
            let value = known(path, host)?;
            writeln!(out, "{}", shown(&value))?;
            Ok(())
        }
        Store::Stats => {
            let stats = host.store()?.stats();
            write!(out, "{}", stats.context(|| "ask xenstored".to_owned())?)?;
            Ok(())
        }
    }
}

/// The value of a node that must be there.
fn known(path: &str, host: &mut dyn Toolstack) -> Result<String, Failure> {
    let value = host.store()?.read(path);
    let value = value.context(|| format!("read {path} in xenstore"))?;
    value.ok_or_else(|| Failure::Refused {
        action: format!("read {path} in xenstore"),
        error: "there is no such node".to_owned(),
    })
}

fn list(path: &str, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let children = host.store()?.list(path);
    for name in children.context(|| format!("list {path} in xenstore"))? {
        let child = format!("{}/{name}", path.trim_end_matches('/'));
        let value = host.store()?.read(&child);
        // A node may go while it is being listed.
        if let Some(value) = value.context(|| format!("read {child} in xenstore"))? {
            writeln!(out, "{child} = \"{}\"", shown(&value))?;
            list(&child, host, out)?;
        }
    }
    Ok(())
}

/// Guests write values: what would steer the terminal is shown, not obeyed.
fn shown(value: &str) -> String {
    value.escape_debug().to_string()
}
