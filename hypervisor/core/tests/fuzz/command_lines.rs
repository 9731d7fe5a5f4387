//! The hypervisor's command line.

use oxen_core::cmdline::Options;

use super::target;

const WORDS: [&str; 20] = [
    "dom0_mem=",
    "dom0_max_vcpus=",
    "dom0_vcpus_pin",
    "com1=",
    "com2=",
    "console=",
    "loglvl=",
    "noreboot",
    "apicv",
    "no-",
    "min:",
    "max:",
    "auto",
    "8n1",
    "0x",
    "vga",
    "none",
    "off",
    "18446744073709551615",
    "\u{85}",
];

/// No word is lost: it is either understood, and alone has no problem, or it is named.
#[test]
fn command_lines() {
    target("command_lines")
        .iterations(30_000)
        .words(WORDS)
        .run(|input| {
            let line = String::from_utf8_lossy(input);
            let options = Options::parse(&line);
            let wrong = line
                .split_ascii_whitespace()
                .filter(|word| !Options::parse(word).problems.is_empty());
            assert_eq!(wrong.count(), options.problems.len());
            options.problems
        });
}
