//! Names the input that a target does not come back from.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::corpus::Corpus;

/// No input takes a thousandth of that, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The input that runs, and since when.
type Running = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

/// A thread that ends the process when an input takes too long.
pub struct Watchdog {
    running: Running,
    /// The thread ends when this is dropped.
    _life: Sender<()>,
}

impl Watchdog {
    /// Starts it.
    pub fn start(corpus: Corpus) -> Self {
        let running = Running::default();
        let (life, end) = channel();
        let watched = running.clone();
        std::thread::spawn(move || {
            while end.recv_timeout(LIMIT / 4) == Err(RecvTimeoutError::Timeout) {
                let running = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, input)) = &*running
                    && since.elapsed() > LIMIT
                {
                    corpus.report("the target hangs", input);
                    std::process::exit(1);
                }
            }
        });
        Self {
            running,
            _life: life,
        }
    }

    /// An input begins.
    pub fn begin(&self, input: &[u8]) {
        self.set(Some((Instant::now(), input.to_vec())));
    }

    /// It is over.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, state: Option<(Instant, Vec<u8>)>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
