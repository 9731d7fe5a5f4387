//! What an operation costs, from what the hypervisor's debug key `x` tells before and after many of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// The last line of what the key shows.
const END: &str = "now: ticks ";
/// Before each of the hypervisor's lines.
const OWN: &str = "(oxen) ";

/// Averages of one operation.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Ticks that pass; on one CPU without those when nobody ran.
    pub time: f64,
    /// Ticks of CPUs when somebody ran.
    pub all: f64,
    /// Of these, in all guests but dom0, their exits' and entries' own instructions included.
    pub guests: f64,
    /// In dom0, likewise.
    pub dom0: f64,
    /// In the hypervisor.
    pub hypervisor: f64,
    /// Ticks of CPUs when nobody ran, besides. The programs that are the load sleep now and then, so that this is within their
    /// milliseconds, and may be less than nothing.
    pub idle: f64,
    /// Exits of all domains.
    pub exits: f64,
    /// Grants mapped, unmapped or copied.
    pub grants: f64,
}

impl Cost {
    /// The key was pressed thrice, before and after a small load and after a big one; between these are `operations` more. The
    /// machine has so many CPUs.
    pub fn of(text: &str, operations: u64, cpus: u32) -> Result<Self> {
        let looks: Vec<Counts> = text
            .split_inclusive(END)
            .zip(text.split(END).skip(1))
            .map(|(before, behind)| Counts::parse(before, behind))
            .collect();
        let [first, second, third] = &looks[..] else {
            bail!("{} looks instead of 3", looks.len());
        };
        let more = |what: &dyn Fn(&Counts) -> u64| {
            let [first, second, third] = [first, second, third].map(|counts| what(counts) as f64);
            ((third - second) - (second - first)) / operations as f64
        };
        let idle = more(&|counts| counts.sum(|_, group, _| group == "idle"));
        let now = more(&|counts| counts.sum(|_, _, name| name == "now"));
        let all = f64::from(cpus) * now - idle;
        if all <= 0.0 {
            bail!("the bigger load took no longer than the smaller one");
        }
        let mode = |guest: bool| {
            more(&|counts| {
                counts.sum(|who, group, _| group == "guest mode" && (who != "domain 0") == guest)
            })
        };
        let (guests, dom0) = (mode(true), mode(false));
        if guests <= 0.0 || dom0 <= 0.0 {
            bail!("no time in guest mode is told");
        }
        Ok(Self {
            time: if cpus == 1 { all } else { now },
            all,
            guests,
            dom0,
            hypervisor: all - guests - dom0,
            idle,
            exits: more(&|counts| counts.sum(|_, group, _| group == "exits")),
            grants: more(&|counts| counts.sum(|_, group, _| group == "grants")),
        })
    }
}

/// The TSC's frequency, as the debug key `t` tells it.
pub(super) fn kilohertz(text: &str) -> Result<u64> {
    let found = text
        .split_once("TSC ")
        .and_then(|(_, rest)| rest.split(' ').next());
    found
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("the hypervisor does not say how fast the TSC is: {text}"))
}

/// What was counted, by who, in which group, and its name.
#[derive(Debug, Default)]
struct Counts(BTreeMap<(String, String, String), u64>);

impl Counts {
    /// Lines `WHO: GROUP: NAME COUNT, NAME COUNT; GROUP: …` before the last line, and the number that this has.
    fn parse(before: &str, behind: &str) -> Self {
        let mut counts = Self::default();
        let now = behind.split_whitespace().next().unwrap_or_default();
        counts.put("machine", "time", "now", now);
        for line in before.lines() {
            let line = line.trim().trim_start_matches(OWN);
            let Some((who, groups)) = line.split_once(": ") else {
                continue;
            };
            for (group, list) in groups.split(';').filter_map(|group| group.split_once(':')) {
                for (name, count) in list.split(',').filter_map(|item| item.rsplit_once(' ')) {
                    counts.put(who, group.trim(), name.trim(), count);
                }
            }
        }
        counts
    }

    fn put(&mut self, who: &str, group: &str, name: &str, count: &str) {
        if let Ok(count) = count.trim().parse() {
            let key = [who, group, name].map(str::to_owned);
            self.0.insert(key.into(), count);
        }
    }

    fn sum(&self, wanted: impl Fn(&str, &str, &str) -> bool) -> u64 {
        let wanted = |(who, group, name): &(String, String, String)| wanted(who, group, name);
        self.0
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(now: u64, idle: u64, dom0: u64, guest: u64, exits: u64, copied: u64) -> String {
        format!(
            "(oxen) domain 0: exits: external interrupt 3, HLT {exits}\r\n\
             (oxen) domain 0: hypercalls: sched_op 7; grants: mapped 1, unmapped 0, copied {copied}; guest mode: ticks {dom0}\r\n\
             (oxen) domain 1: exits: HLT {exits}\r\n\
             (oxen) domain 1: hypercalls:; grants: mapped 0, unmapped 0, copied 0; guest mode: ticks {guest}\r\n\
             (oxen) cpu 0: idle: ticks {idle}\r\n(oxen) now: ticks {now}\r\n"
        )
    }

    #[test]
    fn an_operation_costs_what_the_bigger_load_takes_longer() {
        let text = look(1000, 10, 200, 300, 5, 0)
            + &look(2000, 20, 400, 600, 10, 10)
            + "in between\r\n"
            + &look(13_000, 1030, 2600, 3900, 115, 120);
        let cost = Cost::of(&text, 100, 1).expect("three looks");
        let expected = Cost {
            time: 90.0,
            all: 90.0,
            guests: 30.0,
            dom0: 20.0,
            hypervisor: 40.0,
            idle: 10.0,
            exits: 2.0,
            grants: 1.0,
        };
        assert_eq!(cost, expected);
        let apart = Cost::of(&text, 100, 2).expect("three looks");
        let expected = Cost {
            time: 100.0,
            all: 190.0,
            hypervisor: 140.0,
            ..expected
        };
        assert_eq!(apart, expected);
    }

    #[test]
    fn fewer_looks_are_no_answer() {
        assert!(Cost::of(&look(1, 1, 1, 1, 1, 1), 1, 1).is_err());
        assert!(Cost::of("", 1, 1).is_err());
    }

    #[test]
    fn the_frequency_stands_behind_its_name() {
        let text = "system time 55 ns, TSC 200000 kHz\r\n";
        assert_eq!(kilohertz(text).ok(), Some(200_000));
        assert!(kilohertz("no time").is_err());
    }
}
