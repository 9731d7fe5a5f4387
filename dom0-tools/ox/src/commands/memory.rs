//! `ox mem-set` and `ox mem-max`.

use super::write_nodes;
use crate::cli::Memory;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::names;

/// What a domain has besides its RAM and nobody counts: rings and tables. As much as xl allows for them.
const TABLES_KIB: u64 = 1024;

/// `ox mem-set`: tells the balloon driver of a guest how much to keep.
pub fn set(arguments: &Memory, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = names::resolve(host, &arguments.domain)?;
    let domid = state.domid;
    let kib = parse_size(&arguments.size)?;
    if kib == 0 {
        return Err(Failure::Usage(
            "a domain cannot live with no memory".to_owned(),
        ));
    }
    if kib > state.max_memory_kib {
        return Err(Failure::Usage(format!(
            "{kib} KiB is more than domain {domid} may have, {} KiB; `ox mem-max` raises that",
            state.max_memory_kib
        )));
    }
    let node = ("memory/target".to_owned(), kib.to_string());
    write_nodes(host, domid, &[node], "set the memory target of")
}

/// `ox mem-max`: sets the hypervisor's limit.
pub fn max(arguments: &Memory, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = names::resolve(host, &arguments.domain)?;
    let domid = state.domid;
    let kib = parse_size(&arguments.size)?;
    let limit = kib + TABLES_KIB;
    if limit < state.memory_kib {
        return Err(Failure::Usage(format!(
            "domain {domid} has {} KiB already; lower that with `ox mem-set` first",
            state.memory_kib
        )));
    }
    host.xen()?
        .set_max_memory(domid, limit)
        .context(|| format!("set the memory limit of domain {domid}"))
}

/// A size, in KiB. Without a unit it is in MiB, as xl's program has it (its manual page says KiB).
fn parse_size(text: &str) -> Result<u64, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{text:?} is no size: write a number of MiB, or one with b, k, m, g or t behind it, as in 1g"
        ))
    };
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let bytes_shift = match unit.as_str() {
        "b" => 0,
        "k" | "kb" => 10,
        "" | "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err(wrong()),
    };
    // No domain has more than 2^52 bytes, the reach of physical addresses.
    let bytes = number
        .checked_mul(1 << bytes_shift)
        .filter(|bytes| *bytes < 1 << 52);
    Ok(bytes.ok_or_else(wrong)? / 1024)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_mib_unless_they_say_otherwise() {
        for (text, kib) in [
            ("1024", 1_048_576),
            ("1024k", 1024),
            ("2048m", 2_097_152),
            ("1G", 1_048_576),
            ("4096b", 4),
            ("1t", 1 << 30),
        ] {
            assert_eq!(parse_size(text).ok(), Some(kib), "{text}");
        }
        for wrong in ["", "m", "-1", "1x", "1.5g", "99999999999t", "+"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
