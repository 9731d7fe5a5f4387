//! What the user sees of work that takes long: a spinner with the elapsed time on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// Says one thing.
pub fn say(text: &str) {
    eprintln!("==> {text}");
}

/// A step under way. Dropping it without [`Step::done`] means that it failed: the error is told elsewhere.
pub struct Step {
    text: String,
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    /// Starts a step.
    pub fn start(text: impl Into<String>) -> Self {
        let text = text.into();
        let spinner = stderr().is_terminal().then(|| spinner(&text));
        if spinner.is_none() {
            say(&text);
        }
        Self {
            text,
            spinner,
            started: Instant::now(),
        }
    }

    /// Tells what within the step is being done.
    pub fn detail(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(format!("{}: {text}", self.text)),
            None => eprintln!("    {text}"),
        }
    }

    /// Ends the step.
    pub fn done(mut self) {
        let seconds = self.started.elapsed().as_secs();
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        say(&format!("{}: done ({seconds} s)", self.text));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

fn spinner(text: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.set_message(text.to_owned());
    spinner.enable_steady_tick(TURN);
    spinner
}
