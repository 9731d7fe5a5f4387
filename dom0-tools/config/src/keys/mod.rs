//! Every key that xl 4.17 reads, and what Oxen makes of it for a PVH domain.
//!
//! Names of keys: xl.cfg(5) and `tools/xl/xl_parse.c` of Xen 4.17.

mod table;

use std::fmt;

use serde::Serialize;

pub use table::KEYS;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number, written plainly or in quotes.
    Number,
    /// A number: 0 is no, any other yes.
    Boolean,
    /// A list of strings.
    List,
    /// One string or a list of them.
    TextOrList,
    /// A name or the number that stands for it.
    NumberOrText,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::Text => "string",
            Kind::Number => "number",
            Kind::Boolean => "0 or 1",
            Kind::List => "list",
            Kind::TextOrList => "string or list",
            Kind::NumberOrText => "number or name",
        })
    }
}

/// What Oxen does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "treatment")]
pub enum Treatment {
    /// The key does what xl.cfg(5) says.
    Honoured,
    /// The key is refused, unless it asks for one of `accepted`: what an Oxen domain has anyway.
    Unsupported {
        /// Why, as the end of a sentence.
        reason: &'static str,
        /// Values that are fine; an empty list always is.
        accepted: &'static [&'static str],
    },
    /// The key concerns what a PVH domain does not have; xl ignores it there, `ox` says so in a warning.
    Meaningless {
        /// What it concerns.
        reason: &'static str,
    },
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The key as it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What is done with it.
    #[serde(flatten)]
    pub treatment: Treatment,
}

/// The row of a key.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that is most like `name`, if one is like it at all.
pub fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, KEYS.iter().map(|key| key.name))
}

/// The candidate that is most like `name`: at most a third of the letters wrong, honoured keys before others at the same distance.
pub fn nearest_of<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A longer text cannot be near to any name, and the distance costs the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().max(3) / 3).min(3) && *distance < candidate.len()
        })
        .min_by_key(|(distance, candidate)| {
            let honoured = find(candidate).is_some_and(|key| key.treatment == Treatment::Honoured);
            (*distance, !honoured)
        })
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_named_twice() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn near_keys_are_suggested() {
        for (wrong, right) in [
            ("vcpu", "vcpus"),
            ("memroy", "memory"),
            ("max_mem", "maxmem"),
            ("Kernel", "kernel"),
            ("on_power_off", "on_poweroff"),
            ("ramdsik", "ramdisk"),
            ("cmd_line", "cmdline"),
        ] {
            assert_eq!(nearest(wrong), Some(right), "{wrong}");
        }
        assert_eq!(nearest("frobnicate_all"), None);
        assert_eq!(nearest(""), None);
        assert_eq!(nearest(&"x".repeat(1 << 20)), None);
    }
}
