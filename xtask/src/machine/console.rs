//! The serial console of a running machine: one thread reads it, logs it whole, and lets others wait for text in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::LastWords;

/// How much of the console an error message shows.
const TAIL_LINES: usize = 15;

/// Switches the serial line's input to the hypervisor, and back.
const SWITCH: &[u8] = &[1; 3];
/// Debug keys that tell what everybody waits for: CPUs, vCPUs, exits, event channels.
const KEYS: &[u8] = b"cdxe";
/// How long the hypervisor has for the answer to one.
const ANSWER: Duration = Duration::from_secs(3);

/// Bytes of a line that are typed at once, and how long their echo is waited for.
const PIECE: usize = 32;
const ECHO: Duration = Duration::from_secs(2);

/// A serial console. Text is waited for from where the last wait ended, so each [`Console::expect`] sees only what came after the
/// previous match.
pub struct Console {
    shared: Arc<Shared>,
    input: Box<dyn Write + Send>,
    cursor: usize,
}

/// Why the awaited text did not come. Each names what was waited for and shows the console's last lines.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Time is over.
    #[error("no {wanted:?} within {} s; the console ends:\n{tail}", .after.as_secs())]
    TimedOut {
        /// The awaited text.
        wanted: String,
        /// How long it was waited for.
        after: Duration,
        /// The console's last lines.
        tail: String,
    },
    /// The machine said its last words instead.
    #[error("waited for {wanted:?}, but the machine stopped: {last_words}")]
    Stopped {
        /// The awaited text.
        wanted: String,
        /// What it said.
        last_words: LastWords,
    },
    /// The console is closed: the emulator has ended.
    #[error("waited for {wanted:?}, but the emulator closed the console, which ends:\n{tail}")]
    Closed {
        /// The awaited text.
        wanted: String,
        /// The console's last lines.
        tail: String,
    },
    /// The machine takes no input.
    #[error("cannot send to the console: {0}")]
    Send(#[from] io::Error),
}

impl Console {
    /// A console that reads from `output`, writes to `input` and logs all output to `log`.
    pub(super) fn new(
        mut output: impl Read + Send + 'static,
        input: impl Write + Send + 'static,
        mut log: File,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("console".into())
            .spawn(move || {
                let mut chunk = [0; 4096];
                loop {
                    match output.read(&mut chunk) {
                        Ok(0) => break,
                        Ok(count) => {
                            // A full disk must not end the run: the text is still in memory.
                            let _ = log.write_all(&chunk[..count]);
                            writer.append(&chunk[..count]);
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
                writer.close();
            })?;
        Ok(Self {
            shared,
            input: Box::new(input),
            cursor: 0,
        })
    }

    /// Also gives all output, from the first byte on, to `sink`, on a thread of its own: a terminal, or standard output. Returns the thread, which
    /// ends when the console closes or the sink takes no more.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn copy_to(
        &self,
        mut sink: impl Write + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("console copy".into())
            .spawn(move || {
                let mut done = 0;
                loop {
                    let (text, closed) = {
                        let mut state = shared.lock();
                        while state.text.len() == done && !state.closed {
                            state = shared
                                .changed
                                .wait(state)
                                .unwrap_or_else(PoisonError::into_inner);
                        }
                        (state.text[done..].to_vec(), state.closed)
                    };
                    done += text.len();
                    if sink.write_all(&text).and_then(|()| sink.flush()).is_err()
                        || (closed && text.is_empty())
                    {
                        break;
                    }
                }
            })
    }

    /// Waits until `pattern` comes and returns the text up to and with it.
    ///
    /// # Errors
    /// When it does not come within `timeout`, or can no longer come because the machine has stopped.
    pub fn expect(&mut self, pattern: &str, timeout: Duration) -> Result<String, ConsoleError> {
        self.expect_any(&[pattern], timeout).map(|(_, text)| text)
    }

    /// Waits until one of `patterns` comes; returns its index and the text up to and with it. Where several are there, the one that ends first wins.
    ///
    /// # Errors
    /// As for [`Console::expect`].
    pub fn expect_any(
        &mut self,
        patterns: &[&str],
        timeout: Duration,
    ) -> Result<(usize, String), ConsoleError> {
        let end = Instant::now() + timeout;
        let longest = patterns
            .iter()
            .map(|pattern| pattern.len())
            .max()
            .unwrap_or(0);
        let mut state = self.shared.lock();
        let mut from = self.cursor;
        loop {
            let found = patterns
                .iter()
                .enumerate()
                .filter_map(|(index, pattern)| {
                    Some((find(&state.text, from, pattern.as_bytes())?, index))
                })
                .min();
            if let Some((match_end, index)) = found {
                let text =
                    String::from_utf8_lossy(&state.text[self.cursor..match_end]).into_owned();
                self.cursor = match_end;
                return Ok((index, text));
            }
            from = state.text.len().saturating_sub(longest).max(self.cursor);
            let wanted = || patterns.join("\" or \"");
            if let Some((last_words, _)) = &state.last_words {
                return Err(ConsoleError::Stopped {
                    wanted: wanted(),
                    last_words: last_words.clone(),
                });
            }
            if state.closed {
                return Err(ConsoleError::Closed {
                    wanted: wanted(),
                    tail: tail(&state.text),
                });
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConsoleError::TimedOut {
                    wanted: wanted(),
                    after: timeout,
                    tail: tail(&state.text),
                });
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Sends a line to whatever reads the serial line: dom0's console, as long as input is not switched to the hypervisor.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn send_line(&mut self, line: &str) -> Result<(), ConsoleError> {
        self.send(format!("{line}\n").as_bytes())
    }

    /// Sends a line in pieces, each when something as long as the one before has come back as its echo, or does not come: Xen
    /// drops what is typed faster than its dom0 reads.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn type_line(&mut self, line: &str) -> Result<(), ConsoleError> {
        for piece in line.as_bytes().chunks(PIECE) {
            let echoed = self.shared.lock().text.len() + piece.len();
            let end = Instant::now() + ECHO;
            self.send(piece)?;
            let mut state = self.shared.lock();
            while state.text.len() < echoed && !state.closed && Instant::now() < end {
                state = self.shared.wait(state, ECHO);
            }
        }
        self.send(b"\n")
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ConsoleError> {
        self.input.write_all(bytes)?;
        self.input.flush()?;
        Ok(())
    }

    /// Has the hypervisor tell by its debug keys what everybody waits for: the lines that it says, none if it is no longer there.
    pub fn ask_hypervisor(&mut self) -> String {
        let before = self.shared.lock().text.len();
        for keys in std::iter::once(SWITCH).chain(KEYS.chunks(1)) {
            // Who does not listen has nothing to say.
            if self.send(keys).is_err() {
                break;
            }
            let _ = self.expect("no such line", ANSWER);
        }
        let _ = self.send(SWITCH);
        let state = self.shared.lock();
        let said = String::from_utf8_lossy(&state.text[before..]);
        said.lines()
            .filter(|line| line.contains("(oxen)"))
            .map(|line| format!("  | {}\n", line.trim_end()))
            .collect()
    }

    /// Everything that was printed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().text).into_owned()
    }

    /// The last lines, for a message about what went wrong.
    pub fn tail(&self) -> String {
        tail(&self.shared.lock().text)
    }

    pub(super) fn last_line(&self) -> String {
        let text = self.text();
        let line = text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        line.unwrap_or("nothing at all").to_owned()
    }

    /// The last words: the hypervisor's, or for a `bare` kernel its own.
    pub(super) fn last_words(&self, bare: bool) -> Option<LastWords> {
        let state = self.shared.lock();
        match &state.last_words {
            Some((last_words, _)) => Some(last_words.clone()),
            None if bare => LastWords::of_linux(&String::from_utf8_lossy(&state.text)),
            None => None,
        }
    }

    /// How long ago the hypervisor's last words came.
    pub(super) fn last_words_age(&self) -> Option<Duration> {
        self.shared
            .lock()
            .last_words
            .as_ref()
            .map(|(_, at)| at.elapsed())
    }

    /// Sleeps until more was printed or the console was closed, at most `timeout`.
    pub(super) fn wait_for_change(&self, timeout: Duration) {
        let state = self.shared.lock();
        if state.closed {
            drop(state);
            thread::sleep(timeout);
        } else {
            drop(self.shared.wait(state, timeout));
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    /// Where the first line starts that was not yet whole when last looked at.
    line_start: usize,
    last_words: Option<(LastWords, Instant)>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data: one that a panicking holder left is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn append(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.text.extend_from_slice(bytes);
        while let Some(end) = find(&state.text, state.line_start, b"\n") {
            state.take_line(end);
        }
        self.changed.notify_all();
    }

    fn close(&self) {
        let mut state = self.lock();
        // The machine may have gone off within its last line's end.
        let end = state.text.len();
        state.take_line(end);
        state.closed = true;
        self.changed.notify_all();
    }
}

impl State {
    fn take_line(&mut self, end: usize) {
        let line = String::from_utf8_lossy(&self.text[self.line_start..end]);
        if let Some(last_words) = LastWords::of_hypervisor(&line) {
            self.last_words = Some((last_words, Instant::now()));
        }
        self.line_start = end;
    }
}

/// The end of the first `pattern` in `text` at or after `from`.
fn find(text: &[u8], from: usize, pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(from);
    }
    let start = text
        .get(from..)?
        .windows(pattern.len())
        .position(|part| part == pattern)?;
    Some(from + start + pattern.len())
}

fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    shown
        .iter()
        .map(|line| format!("  | {}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NOW: Duration = Duration::from_millis(30);

    fn console(output: impl Read + Send + 'static) -> Console {
        Console::new(output, io::sink(), no_log()).expect("thread starts")
    }

    fn no_log() -> File {
        let null = File::options().write(true).open("/dev/null");
        null.expect("/dev/null")
    }

    #[test]
    fn each_wait_starts_where_the_last_one_ended() {
        let mut console = console(&b"one two one three"[..]);
        assert_eq!(console.expect("one", SOON).expect("first"), "one");
        assert_eq!(console.expect("one", SOON).expect("second"), " two one");
        assert!(matches!(
            console.expect("one", SOON),
            Err(ConsoleError::Closed { .. })
        ));
    }

    #[test]
    fn text_split_over_reads_is_found() {
        let (reader, mut writer) = io::pipe().expect("pipe");
        let mut console = console(reader);
        writer.write_all(b"dom").expect("write");
        assert!(matches!(
            console.expect("dom0# ", NOW),
            Err(ConsoleError::TimedOut { .. })
        ));
        writer.write_all(b"0# ").expect("write");
        console.expect("dom0# ", SOON).expect("the prompt is there");
    }

    #[test]
    fn a_wait_ends_with_the_hypervisors_last_words() {
        let (reader, mut writer) = io::pipe().expect("pipe");
        let mut console = console(reader);
        writer
            .write_all(b"(oxen) STOP boot: no dom0 kernel module\r\n")
            .expect("write");
        let error = console.expect("dom0# ", SOON).expect_err("no prompt comes");
        assert!(
            error.to_string().contains("no dom0 kernel module"),
            "{error}"
        );
    }

    #[test]
    fn last_words_count_though_the_machine_goes_off_within_the_lines_end() {
        let mut console = console(&b"dom0# (oxen) STOP poweroff"[..]);
        assert!(console.expect("nothing", SOON).is_err());
        assert_eq!(console.last_words(false), Some(LastWords::PowerOff));
    }

    #[test]
    fn of_several_patterns_the_first_in_the_text_wins() {
        let mut console = console(&b"a STALL then a WARN"[..]);
        assert_eq!(
            console
                .expect_any(&["WARN", "STALL"], SOON)
                .expect("one of them")
                .0,
            1
        );
    }

    #[test]
    fn a_line_is_typed_whole_though_nobody_echoes_it() {
        let (reader, writer) = io::pipe().expect("pipe");
        let mut console = Console::new(io::empty(), writer, no_log()).expect("thread starts");
        let line = "x".repeat(3 * PIECE + 1);
        console.type_line(&line).expect("typed");
        drop(console);
        let typed = io::read_to_string(reader).expect("text");
        assert_eq!(typed, line + "\n");
    }

    #[test]
    fn a_hypervisor_that_is_gone_has_nothing_to_say() {
        let mut console = console(&b"(oxen) before\n"[..]);
        assert!(console.expect("nothing", NOW).is_err());
        assert_eq!(console.ask_hypervisor(), "");
    }

    #[test]
    fn bytes_that_are_not_text_do_no_harm() {
        let mut console = console(&b"\xff\xfe ok"[..]);
        assert!(console.expect("ok", SOON).expect("found").ends_with(" ok"));
    }
}
