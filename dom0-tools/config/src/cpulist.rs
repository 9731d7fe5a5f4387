//! Lists of host CPUs, as in `cpus = "0-3,^2"`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// CPU and node numbers at or above this are refused: no machine has them, and a list must not cost memory by its numbers.
pub const MAX_CPU: u32 = 4096;

/// The CPUs of the host, as far as a list of CPUs needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCpus {
    /// The NUMA node of each CPU, by number of the CPU.
    pub nodes: Vec<u32>,
}

impl HostCpus {
    /// A host whose CPUs are all on node 0.
    pub fn one_node(cpus: u32) -> Self {
        Self {
            nodes: vec![0; cpus as usize],
        }
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.nodes).map(|(cpu, _)| cpu)
    }
}

/// Which CPUs a term of a list speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    All,
    Cpus(u32, u32),
    Nodes(u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    remove: bool,
    range: Range,
}

/// A list of host CPUs, which is worked off from left to right: `0-3`, `5`, `^2`, `all`, `node:1`, `nodes:0-1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CpuList(Vec<Term>);

/// Why a text is no list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{term:?} in the list of CPUs {list:?} is not understood: write all, N, N-M, node:N or nodes:N-M, with ^ in front to leave out"
)]
pub struct CpuListError {
    list: String,
    term: String,
}

impl CpuList {
    /// Every CPU.
    pub fn all() -> Self {
        Self(vec![Term {
            remove: false,
            range: Range::All,
        }])
    }

    /// The CPUs of the host that the list names; empty when there are none, which no vCPU can run on.
    pub fn resolve(&self, host: &HostCpus) -> BTreeSet<u32> {
        let mut cpus = BTreeSet::new();
        for term in &self.0 {
            let named = host.all().zip(&host.nodes).filter_map(|(cpu, node)| {
                match term.range {
                    Range::All => true,
                    Range::Cpus(first, last) => (first..=last).contains(&cpu),
                    Range::Nodes(first, last) => (first..=last).contains(node),
                }
                .then_some(cpu)
            });
            if term.remove {
                named.for_each(|cpu| {
                    cpus.remove(&cpu);
                });
            } else {
                cpus.extend(named);
            }
        }
        cpus
    }
}

/// A set of CPUs in the notation of a list, `0-3,5`; `none` when empty.
pub fn format_set(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<_> = ranges
        .into_iter()
        .map(|(first, last)| format_range(first, last))
        .collect();
    texts.join(",")
}

fn format_range(first: u32, last: u32) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(list: &str) -> Result<Self, CpuListError> {
        list.split(',')
            .map(|term| {
                parse_term(term.trim()).ok_or_else(|| CpuListError {
                    list: list.to_owned(),
                    term: term.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn parse_term(term: &str) -> Option<Term> {
    let (remove, term) = match term.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, term),
    };
    let nodes = term
        .strip_prefix("nodes:")
        .or_else(|| term.strip_prefix("node:"));
    let range = match nodes {
        // xl lets the negation stand behind the prefix too.
        Some(nodes) => match nodes.strip_prefix('^') {
            Some(nodes) if !remove => return parse_node_range(nodes, true),
            _ => return parse_node_range(nodes, remove),
        },
        None if term == "all" => Range::All,
        None => {
            let (first, last) = parse_range(term)?;
            Range::Cpus(first, last)
        }
    };
    Some(Term { remove, range })
}

fn parse_node_range(nodes: &str, remove: bool) -> Option<Term> {
    let range = if nodes == "all" {
        Range::All
    } else {
        let (first, last) = parse_range(nodes)?;
        Range::Nodes(first, last)
    };
    Some(Term { remove, range })
}

fn parse_range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse::<u32>().ok())?
            .filter(|number| *number < MAX_CPU)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

impl fmt::Display for CpuList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            if term.remove {
                out.write_str("^")?;
            }
            match term.range {
                Range::All => out.write_str("all")?,
                Range::Cpus(first, last) => out.write_str(&format_range(first, last))?,
                Range::Nodes(first, last) => write!(out, "nodes:{}", format_range(first, last))?,
            }
        }
        Ok(())
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> String {
        list.to_string()
    }
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_worked_off_from_left_to_right() {
        let host = HostCpus {
            nodes: vec![0, 0, 0, 0, 1, 1, 1, 1],
        };
        for (list, cpus) in [
            ("all", "0-7"),
            ("0-3,5,^1", "0,2-3,5"),
            ("all,^7", "0-6"),
            ("1,node:1,^6", "1,4-5,7"),
            ("all,^nodes:1", "0-3"),
            ("nodes:0-1,nodes:^0", "4-7"),
            ("^1,1", "1"),
            ("100", "none"),
            ("0 , 2", "0,2"),
        ] {
            let parsed: CpuList = list.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(format_set(&parsed.resolve(&host)), cpus, "{list}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{list}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in [
            "", ",", "a", "1-", "-1", "3-1", "^", "^^1", "+1", "99999", "0x1", "node:",
        ] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong:?}");
        }
    }
}
