//! The files of a target's kept inputs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Inputs from a directory, in the order of their files' names.
#[derive(Clone, Debug)]
pub struct Corpus {
    directory: PathBuf,
    inputs: Arc<[Vec<u8>]>,
}

impl Corpus {
    /// Reads them.
    ///
    /// # Panics
    /// When there are none, or the files cannot be read.
    pub fn load(directory: &Path) -> Self {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(directory) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        assert!(!files.is_empty(), "{}: no inputs", directory.display());
        files.sort();
        let read = |file: &PathBuf| {
            std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        Self {
            directory: directory.to_owned(),
            inputs: files.iter().map(read).collect(),
        }
    }

    /// The inputs.
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Prints an input and writes it beside the others, so that the next run begins with it.
    pub fn report(&self, what: &str, input: &[u8]) {
        eprintln!("{what} on this input: b\"{}\"", input.escape_ascii());
        if self.inputs.iter().any(|kept| kept == input) {
            eprintln!("it is in {}", self.directory.display());
            return;
        }
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let file = self
            .directory
            .join(format!("found-{:016x}", hasher.finish()));
        match std::fs::write(&file, input) {
            Ok(()) => eprintln!("it is in {} now: keep it there", file.display()),
            Err(error) => eprintln!("{}: {error}", file.display()),
        }
    }
}
