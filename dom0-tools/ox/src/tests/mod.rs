//! Verbs against a host that is not there.

mod block;
mod create;
mod daemon;
mod network;
mod records;
mod stop;
mod verbs;

use std::path::PathBuf;

use clap::Parser;

use crate::cli::Cli;
use crate::commands;
use crate::failure::Failure;
use crate::host::fake::Fake;

/// Runs what would be typed behind `ox`; gives what it prints.
fn ox(host: &Fake, words: &[&str]) -> Result<String, Failure> {
    let words = std::iter::once("ox").chain(words.iter().copied());
    let cli = Cli::try_parse_from(words).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut out = Vec::new();
    commands::run(cli.command, &mut host.clone(), &mut out)?;
    String::from_utf8(out).map_err(|error| Failure::Usage(error.to_string()))
}

/// What it prints, when it works.
fn ok(host: &Fake, words: &[&str]) -> String {
    ox(host, words).unwrap_or_else(|failure| panic!("{words:?}: {failure}"))
}

/// Exit code and message, when it does not work.
fn fails(host: &Fake, words: &[&str]) -> (u8, String) {
    match ox(host, words) {
        Ok(printed) => panic!("{words:?}: {printed}"),
        Err(failure) => (failure.exit_code(), failure.to_string()),
    }
}

/// A configuration in a directory of its own, with a file that can stand for a kernel.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let files = Self { directory };
        let kernel = files.path("vmlinuz");
        let text = format!(
            "type = 'pvh'\nname = 'demo'\nkernel = '{}'\nmemory = 256\n{extra}\n",
            kernel.display()
        );
        for (path, text) in [(kernel, "kernel"), (files.path("demo.cfg"), &text)] {
            std::fs::write(path, text).unwrap_or_else(|error| panic!("{error}"));
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> String {
        self.path("demo.cfg").display().to_string()
    }
}
