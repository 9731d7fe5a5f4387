//! The hypervisor's console: every line goes to the log ring, and to the serial line and the screen as configured.
//!
//! dom0's own console shares the serial line: its bytes pass through [`write_guest`] untouched.

pub mod screen;
pub mod serial;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use oxen_core::log_ring::LogRing;
use spin::Mutex;

/// Bytes of the log that are kept.
const LOG_CAPACITY: usize = 64 * 1024;

/// What stands before each line of the hypervisor's own.
const PREFIX: &str = "(oxen) ";

static OUTPUT: Mutex<Output> = Mutex::new(Output {
    at_line_start: true,
    ring: LogRing::new(),
});
static SERIAL_ON: AtomicBool = AtomicBool::new(true);
static STAGE: AtomicU8 = AtomicU8::new(1);

struct Output {
    /// Whether the last byte on the wire, from whomever, ended a line.
    at_line_start: bool,
    ring: LogRing<LOG_CAPACITY>,
}

impl Output {
    /// The hypervisor's own bytes: on the wire and on the screen.
    fn own_bytes(&mut self, bytes: &[u8]) {
        screen::write(bytes);
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if SERIAL_ON.load(Ordering::Relaxed) {
            serial::write(bytes);
        }
        if let Some(&last) = bytes.last() {
            self.at_line_start = last == b'\n';
        }
    }
}

/// One line of ours: prefixed, in the ring and on the wire.
struct Line<'a>(&'a mut Output);

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            if self.0.at_line_start {
                self.0.ring.push(PREFIX.as_bytes());
                self.0.own_bytes(PREFIX.as_bytes());
            }
            self.0.ring.push(piece.as_bytes());
            let body = piece.strip_suffix('\n');
            self.0.own_bytes(body.unwrap_or(piece).as_bytes());
            if body.is_some() {
                self.0.own_bytes(b"\r\n");
            }
        }
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let tag = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                Level::Info | Level::Debug | Level::Trace => "",
            };
            print(format_args!("{tag}{}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Makes `log`'s macros write here.
pub fn init() {
    serial::init_default();
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Turns output to the serial line on or off, as `console=` asks.
pub fn set_serial(on: bool) {
    SERIAL_ON.store(on, Ordering::Relaxed);
}

/// Writes formatted text as the hypervisor's own, starting a fresh line where a guest left one open.
pub fn print(args: fmt::Arguments<'_>) {
    let mut output = OUTPUT.lock();
    if !output.at_line_start {
        output.bytes(b"\r\n");
    }
    // Writing to the ring and the wire cannot fail.
    let _ = Line(&mut output).write_fmt(args);
}

/// Reports the next numbered stage of the boot, so that a boot which stops shows where.
pub fn stage(text: &str) {
    let number = STAGE.fetch_add(1, Ordering::Relaxed) + 1;
    print(format_args!("[stage {number:02}] {text}\n"));
}

/// Number of the last stage reported.
pub fn current_stage() -> u8 {
    STAGE.load(Ordering::Relaxed)
}

/// Writes dom0's console bytes to the serial line as they are.
pub fn write_guest(bytes: &[u8]) {
    OUTPUT.lock().bytes(bytes);
}

/// Where the log begins, or goes on from a position that is named; see [`LogRing::begin`].
pub fn log_begin(named: Option<u32>) -> u64 {
    OUTPUT.lock().ring.begin(named)
}

/// Copies the log from a position on into `out`; returns the number of bytes and where they begin, see [`LogRing::read`].
pub fn read_log(position: u64, out: &mut [u8]) -> (usize, u64) {
    OUTPUT.lock().ring.read(position, out)
}

/// Readers that name no position begin there from now on.
pub fn clear_log(position: u64) {
    OUTPUT.lock().ring.clear(position);
}

/// Breaks the console's locks: for a panic, when the holder is this CPU or has been stopped.
///
/// # Safety
/// No other CPU is writing to the console any more.
pub unsafe fn break_locks() {
    // SAFETY: the caller promises that nobody else is between lock and unlock.
    unsafe {
        OUTPUT.force_unlock();
        serial::force_unlock();
        screen::force_unlock();
    }
}
