//! Tests that the hypervisor does not pass yet. They are skipped and named with their reason at each run; `--include-pending` runs them.
//! An entry goes away with the change that makes its test pass.

/// The start of the names of tests, and why they are skipped.
const PENDING: &[(&str, &str)] = &[
    ("tcg::boot::", NO_DOM0),
    ("tcg::kernels::", NO_DOM0),
    ("tcg::devices::", NO_DOM0),
    ("tcg::time::", NO_DOM0),
    ("bochs::boot::", NO_DOM0),
    ("bochs::kernels::", NO_DOM0),
    ("bochs::devices::", NO_DOM0),
    ("bochs::time::", NO_DOM0),
    ("bochs::bad_input::", NO_DOM0),
    ("bochs::isolation::", NO_DOM0),
    ("kvm::boot::", NO_DOM0),
    ("kvm::kernels::", NO_DOM0),
    ("kvm::devices::", NO_DOM0),
    ("kvm::time::", NO_DOM0),
    ("kvm::bad_input::", NO_DOM0),
    ("kvm::isolation::", NO_DOM0),
];

const NO_DOM0: &str = "the hypervisor does not boot dom0 yet";

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
