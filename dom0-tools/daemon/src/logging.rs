//! A log of a line of JSON for each thing that happened, on standard error: `time`, `level`, `target` and `message`.

use std::io::{self, Write};

use serde::Serialize;

/// One thing that happened.
#[derive(Serialize)]
struct Line<'a> {
    /// When, by RFC 3339, in UTC.
    time: &'a str,
    level: &'a str,
    /// The module that says so.
    target: &'a str,
    message: &'a str,
}

/// Starts the log. `RUST_LOG` says how much is logged; `info` and worse if it is not set.
pub fn start() {
    let level = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(level)
        .format(|out, record| {
            let line = Line {
                time: &out.timestamp_millis().to_string(),
                level: &record.level().as_str().to_ascii_lowercase(),
                target: record.target(),
                message: &record.args().to_string(),
            };
            write(out, &line)
        })
        .init();
}

fn write(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    // Guests' names and words may be in a message: JSON has no raw line ends and no control characters.
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_say_makes_no_line_of_its_own() -> Result<(), Box<dyn std::error::Error>> {
        let message = "a \"name\"\n{\"level\":\"error\"}\u{1b}[2J";
        let mut out = Vec::new();
        let line = Line {
            time: "2026-11-30T00:00:00.000Z",
            level: "info",
            target: "test",
            message,
        };
        write(&mut out, &line)?;
        let text = String::from_utf8(out)?;
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}'));
        let parsed: serde_json::Value = serde_json::from_str(&text)?;
        assert_eq!(parsed["message"], message);
        assert_eq!(parsed["level"], "info");
        Ok(())
    }
}
