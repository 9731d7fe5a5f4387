//! Tests that the hypervisor does not pass yet. They are skipped and named with their reason at each run; `--include-pending` runs them.
//! An entry goes away with the change that makes its test pass.

/// The start of the names of tests, and why they are skipped.
const PENDING: &[(&str, &str)] = &[
    ("kvm::", NO_HOST),
    ("tcg::networks::bridge", FIRST_CARD_DEAF),
];

const NO_HOST: &str = "no host with nested VT-x has run it yet";

const FIRST_CARD_DEAF: &str = "on a busy host, seen twice: while a guest is given 15 more cards its first one answers no connection for two minutes";

/// Why a test is skipped, if it is.
pub fn reason(test: &str) -> Option<&'static str> {
    find(PENDING, test)
}

/// An entry that no test matches.
pub fn stale(tests: &[&str]) -> Option<&'static str> {
    PENDING
        .iter()
        .map(|(name, _)| *name)
        .find(|name| !tests.iter().any(|test| test.starts_with(name)))
}

fn find<'a>(table: &[(&str, &'a str)], test: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(name, _)| test.starts_with(name))
        .map(|(_, reason)| *reason)
}
