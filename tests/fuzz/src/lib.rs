//! Fuzzing as a part of `cargo test`, on the stable toolchain.
//!
//! A target is a test that gives bytes to a parser and asserts what must hold of any. [`Target::run`] feeds it every file
//! of its corpus, then inputs made from these: a fixed number, from a fixed seed, so that a run is the same everywhere.
//! There is no coverage to steer by; instead a target returns what came of an input, and inputs with a new outcome are
//! mutated further.
//!
//! An input that makes the target panic, or keeps it for too long, is printed and written into the corpus: the next run
//! begins with it, and it stays there once the fault is gone.
#![forbid(unsafe_code)]

mod corpus;
mod mutate;
mod watchdog;

use std::collections::HashSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use corpus::Corpus;
use mutate::Mutator;
use watchdog::Watchdog;

/// A file to run instead of all else.
const INPUT_VARIABLE: &str = "OXEN_FUZZ_INPUT";
/// How many times as many inputs as usual are made.
const FACTOR_VARIABLE: &str = "OXEN_FUZZ_FACTOR";
/// Another seed than the usual one.
const SEED_VARIABLE: &str = "OXEN_FUZZ_SEED";

/// Inputs with new outcomes beyond this many are not kept: outcomes then tell nothing any more.
const MOST_KEPT: usize = 2000;

/// What is to be fuzzed, and how much.
#[derive(Debug)]
pub struct Target {
    corpus: PathBuf,
    iterations: u64,
    words: Vec<Vec<u8>>,
}

impl Target {
    /// The target whose corpus is `tests/corpus/NAME` of a crate; `crate_directory` is its `CARGO_MANIFEST_DIR`.
    pub fn new(crate_directory: &str, name: &str) -> Self {
        Self {
            corpus: Path::new(crate_directory).join("tests/corpus").join(name),
            iterations: 10_000,
            words: Vec::new(),
        }
    }

    /// How many inputs are made; choose what takes some three seconds.
    #[must_use]
    pub const fn iterations(mut self, iterations: u64) -> Self {
        self.iterations = iterations;
        self
    }

    /// Byte strings that mean something to the target, which mutation would hardly come upon.
    #[must_use]
    pub fn words<W: AsRef<[u8]>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words
            .extend(words.into_iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Runs the target on the corpus and on what is made of it. What it returns is only compared, by its debug output.
    ///
    /// # Panics
    /// When the target does, with the target's own message; when the corpus is empty or cannot be read.
    pub fn run<T: Debug>(self, mut target: impl FnMut(&[u8]) -> T) {
        if let Some(path) = std::env::var_os(INPUT_VARIABLE) {
            let input = std::fs::read(&path)
                .unwrap_or_else(|error| panic!("{INPUT_VARIABLE}={}: {error}", path.display()));
            println!("{:?}", target(&input));
            return;
        }
        let corpus = Corpus::load(&self.corpus);
        let watchdog = Watchdog::start(corpus.clone());
        let mut attempt = |input: &[u8]| {
            watchdog.begin(input);
            let result = catch_unwind(AssertUnwindSafe(|| format!("{:?}", target(input))));
            watchdog.end();
            result.unwrap_or_else(|panic| {
                corpus.report("the target panicked", input);
                resume_unwind(panic)
            })
        };
        let mut outcomes: HashSet<String> = corpus.inputs().iter().map(|i| attempt(i)).collect();
        let mut mutator = Mutator::new(
            number(SEED_VARIABLE).unwrap_or(0x0E),
            corpus.inputs().to_vec(),
            self.words,
        );
        for _ in 0..self.iterations * number(FACTOR_VARIABLE).unwrap_or(1) {
            let input = mutator.make();
            let outcome = attempt(&input);
            if outcomes.len() < MOST_KEPT && outcomes.insert(outcome) {
                mutator.keep(input);
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable}={text}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(words: &[&str]) -> (tempfile::TempDir, Target) {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().to_str().expect("a plain name").to_owned();
        let target = Target::new(&name, "t").iterations(20_000).words(words);
        std::fs::create_dir_all(&target.corpus).expect("a directory");
        std::fs::write(target.corpus.join("a"), b"seed").expect("a file");
        (directory, target)
    }

    /// Finds "OXEN" a letter at a time, which takes far more than these inputs without outcomes.
    fn letters(input: &[u8]) -> usize {
        let common = input.iter().zip(b"OXEN").take_while(|(a, b)| a == b);
        let count = common.count();
        assert!(count < 4, "found");
        count
    }

    #[test]
    fn outcomes_lead_to_a_fault_and_its_input_is_kept_and_comes_first() {
        let (_directory, found) = target(&[]);
        let corpus = found.corpus.clone();
        catch_unwind(AssertUnwindSafe(|| found.iterations(100_000).run(letters)))
            .expect_err("it finds the word");
        let kept = Corpus::load(&corpus).inputs().to_vec();
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().any(|input| input.starts_with(b"OXEN")));

        let again = Target {
            corpus,
            iterations: 0,
            words: Vec::new(),
        };
        catch_unwind(AssertUnwindSafe(|| again.run(letters))).expect_err("it is in the corpus");
    }

    #[test]
    fn words_are_used_and_runs_are_the_same() {
        let runs = [0, 1].map(|_| {
            let (_directory, target) = target(&["a word that nobody guesses"]);
            let mut seen = Vec::new();
            target.run(|input| seen.push(input.to_vec()));
            seen
        });
        assert_eq!(runs[0].len(), 20_001);
        assert!(runs[0] == runs[1], "two runs differ");
        let guessed = |input: &Vec<u8>| input.windows(13).any(|part| part == b"a word that n");
        assert!(runs[0].iter().any(guessed));
    }

    #[test]
    #[should_panic(expected = "no inputs")]
    fn an_empty_corpus_is_a_fault() {
        let directory = tempfile::tempdir().expect("a directory");
        Target::new(directory.path().to_str().expect("a plain name"), "t").run(|_| ());
    }
}
