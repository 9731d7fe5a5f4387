//! Tests that the hypervisor does not pass yet or that nobody has seen pass there, and those that take very long. They are skipped and named
//! with their reason at each run; `--include-pending` runs them. An entry of the first kind goes away with the change that makes its test pass.

/// The start of the names of tests, and why they are skipped.
const PENDING: &[(&str, &str)] = &[("kvm::", NO_HOST)];

const NO_HOST: &str = "no host with nested VT-x has run it yet";

/// The start of the names of tests that take so long that a run of all tests leaves them out. A word that is in their names runs them.
const LONG: &[(&str, &str)] = &[
    ("bochs::debian", ASK_FOR_IT),
    ("bochs::disks::files_and_devices", ASK_FOR_IT),
    ("bochs::disks::fio_verifies", ASK_FOR_IT),
    ("bochs::disks::thirty_two", ASK_FOR_IT),
    ("bochs::networks", ASK_FOR_IT),
    ("bochs::pairings", ASK_FOR_IT),
];

const ASK_FOR_IT: &str = "takes long: give its name to run it";

/// Why a test is skipped, if it is, where those are run that have `filter` in their names.
pub fn reason(test: &str, filter: Option<&str>) -> Option<&'static str> {
    let long = || find(LONG, test).filter(|_| filter.is_none());
    find(PENDING, test).or_else(long)
}

/// An entry that no test matches.
pub fn stale(tests: &[&str]) -> Option<&'static str> {
    [PENDING, LONG]
        .concat()
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| !tests.iter().any(|test| test.starts_with(name)))
}

fn find<'a>(table: &[(&str, &'a str)], test: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(name, _)| test.starts_with(name))
        .map(|(_, reason)| *reason)
}
