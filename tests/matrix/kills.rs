//! The toolstack's processes killed at random moments while guests are made and ended: afterwards each guest is either whole
//! or gone, in the hypervisor, in xenstore and in the records alike, and nothing is left of those that are gone.

use std::collections::{BTreeMap, BTreeSet};

use oxen_tests::{Dom0, Failure};
use xtask::machine::Kind;

use crate::hostile::number;
use crate::{Case, checks, ledger};

/// A seed to start from in place of the usual one; a failure names the one that it had.
const SEED_VARIABLE: &str = "OXEN_KILL_SEED";
const ROUNDS_VARIABLE: &str = "OXEN_KILL_ROUNDS";
const SEED: u64 = 1;
const ROUNDS: u64 = 12;
/// Guests that are left to live over several rounds, at most.
const SURVIVORS: usize = 3;
/// Looks, a second apart, until all is as it should be: daemons start again after a second, and a domain with which something
/// went wrong is tried again after five.
const LOOKS: u32 = 60;

/// Shell functions. `tools` gives the processes of `ox` but the supervisor's; `job NAME COMMAND` notes how the command ended;
/// `state` lists what hypervisor, xenstore and records know.
const FUNCTIONS: &[&str] = &[
    "tools() { for p in $(pidof ox); do grep -q supervise /proc/$p/cmdline 2>/dev/null || echo $p; done; }",
    r#"job() { j=$1; shift; eval "$*" >/tmp/job.$j.out 2>&1; echo "$j $?" >/tmp/job.$j; }"#,
    "make() { ox create /run/visitor.cfg name=$1 $2; }",
    "all_run() { pidof xenstored && pidof xenconsoled && supervisor | grep -q . && ox store stats; }",
    r#"state() { ox list -l | awk '$2 ~ /^[1-9]/ { print "D", $2, $1, $NF }'; ox store ls /local/domain | sed -n 's/^.local.domain.\([1-9][0-9]*\) = .*/N \1/p; s/^.local.domain.\([1-9][0-9]*\).name = "\(.*\)"/S \1 \2/p'; ox store ls /vm | sed -n 's/^.vm.\([^/]*\) = .*/V \1/p'; cd /run/oxen/domains; for f in *; do case $f in _*.json) echo "R ${f} $(grep -o '"phase":[^}]*' $f)";; '*') ;; *) echo "L $f";; esac; done; cd; }"#,
    "beats() { grep -c beat /var/log/xen/console/guest-$1.log; }",
    "lives() { b=$(beats $1); n=0; until [ $(beats $1) -gt $b ]; do sleep 0.5; n=$((n+1)); [ $n -lt 60 ] || return 1; done; }",
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "domains::killed_at_random", killed_at_random))
        .collect()
}

fn killed_at_random(name: &str, kind: Kind) -> Result<(), Failure> {
    let seed = number(SEED_VARIABLE)?.unwrap_or(SEED);
    let rounds = number(ROUNDS_VARIABLE)?.unwrap_or(ROUNDS);
    let mut dom0 = ledger::boot_for_visitors(name, kind, "")?;
    for function in FUNCTIONS {
        dom0.run(function)?;
    }
    // What guests leave for those that come after them, see `many`.
    dom0.run(
        "for n in a b c; do make $n & done; wait; for n in a b c; do ox destroy $n & done; wait",
    )?;
    let before = ledger::take(&mut dom0)?;
    let mut game = Game {
        random: Random(seed),
        survivors: Vec::new(),
    };
    for round in 0..rounds {
        game.round(&mut dom0, round).map_err(|failure| {
            Failure::from(format!(
                "with {SEED_VARIABLE}={seed} {ROUNDS_VARIABLE}={rounds}, in round {round}: {failure}"
            ))
        })?;
    }
    for (name, _) in game.survivors {
        dom0.run(&format!("ox destroy {name}"))?;
    }
    ledger::balances(&mut dom0, &before)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// What a guest does when it has come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    StaysPaused,
    PowersOff,
    Reboots,
}

impl Then {
    const ALL: [Self; 4] = [
        Self::Stays,
        Self::StaysPaused,
        Self::PowersOff,
        Self::Reboots,
    ];

    /// For `ox create`.
    fn argument(self) -> &'static str {
        match self {
            Self::Stays => "",
            Self::StaysPaused => "-p",
            Self::PowersOff => "extra=then=poweroff",
            Self::Reboots => "extra=then=reboot",
        }
    }
}

/// Where a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Whole,
    /// It has a record only: it waits to be made again.
    Waiting,
    Gone,
}

struct Game {
    random: Random,
    survivors: Vec<(String, Then)>,
}

impl Game {
    /// One guest is made, one is made and ended, one of those that live is ended; in the middle of it, somebody is killed.
    fn round(&mut self, dom0: &mut Dom0, round: u64) -> Result<(), Failure> {
        const VICTIMS: [&str; 4] = ["xenstored", "xenconsoled", "supervisor", "tools"];
        let (made, brief) = (format!("k{round}a"), format!("k{round}b"));
        let then = Then::ALL[self.random.below(4)];
        let ended = (self.survivors.len() >= SURVIVORS || self.random.below(2) == 0)
            .then(|| self.survivors.pop())
            .flatten();
        let mut script = format!(
            "rm -f /tmp/job.*; job {made} 'make {made} {}' & job {brief} 'make {brief} && ox destroy {brief}' & ",
            then.argument()
        );
        if let Some((name, _)) = &ended {
            script += &format!("job {name} ox destroy {name} & ");
        }
        for _ in 0..=self.random.below(2) {
            let victim = VICTIMS[self.random.below(4)];
            let pids = match victim {
                "supervisor" | "tools" => victim.to_owned(),
                daemon => format!("pidof {daemon}"),
            };
            let pause = self.random.below(900);
            script += &format!("sleep 0.{pause:03}; kill -9 $({pids}) 2>/dev/null; ");
        }
        script += "wait; cat /tmp/job.k*[ab]";
        let said = dom0.run(&script)?;
        self.judge(dom0, &said, (made, then), &brief, ended)
            .map_err(|failure| {
                let outputs = dom0.try_run(
                    "tail -n 20 /tmp/job.*.out /var/log/xen/*.log; cat /run/oxen/domains/*.json; state",
                );
                let outputs = outputs.map_or_else(|error| error.to_string(), |output| output.text);
                format!("{failure}\nof `{script}`, where `{said}`:\n{outputs}").into()
            })
    }

    fn judge(
        &mut self,
        dom0: &mut Dom0,
        said: &str,
        (made, then): (String, Then),
        brief: &str,
        ended: Option<(String, Then)>,
    ) -> Result<(), Failure> {
        const KILLED: i32 = 137;
        let codes: BTreeMap<&str, i32> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, code)| Some((name, code.parse().ok()?)))
            .collect();
        let code = |name: &str| {
            let code = codes.get(name).copied();
            code.ok_or_else(|| Failure::from(format!("no word of how {name} ended")))
        };
        let made_code = code(&made)?;
        let mut allowed = BTreeMap::from([(
            made.clone(),
            match (made_code, then) {
                (0, Then::Stays | Then::StaysPaused) => vec![Found::Whole],
                (_, Then::PowersOff) => vec![Found::Gone],
                (0, Then::Reboots) => vec![Found::Whole, Found::Waiting],
                (KILLED, _) => vec![Found::Whole, Found::Waiting, Found::Gone],
                _ => vec![Found::Gone],
            },
        )]);
        for name in [brief]
            .into_iter()
            .chain(ended.iter().map(|(name, _)| name.as_str()))
        {
            // What could not be ended may be ended by the supervisor, or have been left alone.
            allowed.insert(
                name.to_owned(),
                match code(name)? {
                    0 => vec![Found::Gone],
                    _ => vec![Found::Gone, Found::Whole, Found::Waiting],
                },
            );
        }
        for (name, then) in &self.survivors {
            allowed.insert(
                name.clone(),
                match then {
                    Then::Reboots => vec![Found::Whole, Found::Waiting],
                    _ => vec![Found::Whole],
                },
            );
        }
        let found = settled(dom0, &allowed)?;
        for (name, then) in [(made, then), (brief.to_owned(), Then::Stays)]
            .into_iter()
            .chain(ended)
        {
            if found.get(&name).is_some_and(|found| *found != Found::Gone) {
                self.survivors.push((name, then));
            }
        }
        // Both daemons serve those that have nothing else to do.
        for (name, _) in self
            .survivors
            .iter()
            .filter(|(_, then)| *then == Then::Stays)
        {
            dom0.run(&format!("lives {name}"))
                .map_err(|failure| format!("{name} gives no sign of life: {failure}"))?;
        }
        Ok(())
    }
}

/// Waits until all that there is fits together, and each guest is where it may be.
fn settled(
    dom0: &mut Dom0,
    allowed: &BTreeMap<String, Vec<Found>>,
) -> Result<BTreeMap<String, Found>, Failure> {
    let mut fault = String::new();
    for _ in 0..LOOKS {
        if dom0.try_run("all_run")?.status == 0 {
            let text = dom0.run("state")?;
            match State::read(&text).and_then(|state| state.find(allowed)) {
                Ok(found) => return Ok(found),
                Err(error) => fault = format!("{error}:\n{text}"),
            }
        } else {
            fault = "not all daemons run".to_owned();
        }
        dom0.run("sleep 1")?;
    }
    Err(fault.into())
}

/// What hypervisor, xenstore and records know.
#[derive(Default)]
struct State {
    /// The hypervisor's domains, with the names that `ox list` shows.
    domains: BTreeMap<u32, String>,
    /// The names of records, with what domain they are of.
    records: BTreeMap<String, Option<u32>>,
}

impl State {
    /// Fails where the three do not say the same.
    fn read(text: &str) -> Result<Self, String> {
        let mut state = Self::default();
        let mut uuids = BTreeSet::new();
        let (mut nodes, mut named, mut homes) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let id = |word: &str| word.parse::<u32>().map_err(|_| format!("strange: {line}"));
            match *words.as_slice() {
                ["D", domid, name, uuid] => {
                    state.domains.insert(id(domid)?, name.to_owned());
                    uuids.insert(uuid);
                }
                ["N", domid] => drop(nodes.insert(id(domid)?)),
                ["S", domid, name] => drop(named.insert(id(domid)?, name.to_owned())),
                ["V", uuid] => drop(homes.insert(uuid)),
                ["R", file, phase] => {
                    let name = file.trim_start_matches('_').trim_end_matches(".json");
                    let domid = ["\"domid\":", "\"old\":"]
                        .iter()
                        .find_map(|key| phase.split_once(key))
                        .map(|(_, rest)| rest.split([',', '}']).next().unwrap_or_default())
                        .filter(|number| *number != "null");
                    let settled = ["running", "kept", "restarting"];
                    if !settled.iter().any(|word| phase.contains(word)) {
                        return Err(format!(
                            "the record of {name} is in the middle of something"
                        ));
                    }
                    let domid = domid.map(id).transpose()?;
                    state.records.insert(name.to_owned(), domid);
                }
                ["L", file] => return Err(format!("{file} is left")),
                _ => return Err(format!("strange: {line}")),
            }
        }
        if nodes != state.domains.keys().copied().collect() {
            return Err("xenstore has nodes of other domains than there are".to_owned());
        }
        if named != state.domains {
            return Err("xenstore and `ox list` do not have the same names".to_owned());
        }
        if uuids != homes {
            return Err("/vm has others than there are".to_owned());
        }
        let recorded: BTreeMap<u32, String> = state
            .records
            .iter()
            .filter_map(|(name, domid)| Some(((*domid)?, name.clone())))
            .collect();
        if recorded != state.domains {
            return Err("the records are of other domains than there are".to_owned());
        }
        Ok(state)
    }

    /// Where guests are; fails where one is not where it may be, or another is there.
    fn find(
        &self,
        allowed: &BTreeMap<String, Vec<Found>>,
    ) -> Result<BTreeMap<String, Found>, String> {
        if let Some(stranger) = self
            .records
            .keys()
            .find(|name| !allowed.contains_key(*name))
        {
            return Err(format!("nobody knows {stranger}"));
        }
        let mut all = BTreeMap::new();
        for (name, allowed) in allowed {
            let found = match self.records.get(name) {
                None => Found::Gone,
                Some(None) => Found::Waiting,
                Some(Some(_)) => Found::Whole,
            };
            if !allowed.contains(&found) {
                return Err(format!("{name} is {found:?}, not one of {allowed:?}"));
            }
            all.insert(name.clone(), found);
        }
        Ok(all)
    }
}

/// Numbers that a seed determines (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) % end as u64) as usize
    }
}
