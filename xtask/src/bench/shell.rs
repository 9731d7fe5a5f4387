//! dom0's shell on a measured machine, or the same shell on the same kernel bare, and what is done with guests there.

use anyhow::{Context, Result, bail};

use super::stack::Stack;
use super::{Bench, LIMIT};
use crate::iso::Boot;
use crate::machine::{Outcome, Running};

const PROMPT: &str = "dom0# ";
/// Before the two clock readings, in nanoseconds, of what was timed.
const TOOK: &str = "took:";
/// Before a command's exit status, and before a number that was asked for.
const STATUS: &str = "status:";
const NUMBER: &str = "number:";
/// Sets NOW by the kernel's clock, without starting a process.
pub(super) const CLOCK: &str =
    "now() { while read -r w x NOW y; do [ $w = now ] && return; done </proc/timer_list; }";
/// Three times Ctrl-A: keys go to the hypervisor, or to dom0 again.
const SWITCH: &[u8] = b"\x01\x01\x01";

pub(super) struct Shell {
    running: Running,
    name: String,
    iso: std::path::PathBuf,
    /// What every guest's configuration has.
    settings: &'static str,
}

impl Shell {
    /// Boots a machine until its shell asks for commands.
    pub fn start(bench: &Bench, name: &str, boot: Boot, cpus: u32, memory: u32) -> Result<Self> {
        // Xen says nothing when it powers off, but its dom0's kernel does.
        let bare = matches!(boot, Boot::Linux { .. }) || matches!(bench.stack, Stack::Xen(_));
        let iso = bench.iso(name, boot)?;
        let mut machine = bench.machine(cpus, memory);
        machine.bare = bare;
        let mut this = Self {
            running: machine.start(name, &iso)?,
            name: name.to_owned(),
            iso,
            settings: bench.stack.settings(),
        };
        this.running.console().expect(PROMPT, LIMIT)?;
        this.command(CLOCK)?;
        Ok(this)
    }

    /// Runs a command line; returns its echo and what it printed.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.running.console().type_line(line)?;
        Ok(self.running.console().expect(PROMPT, LIMIT)?)
    }

    /// Microseconds of the kernel's clock that a command takes, which must succeed, and what it printed on its standard error.
    pub fn timed(&mut self, what: &str) -> Result<(u64, String)> {
        let line = format!("now; a=$NOW; {{ {what}; }} >/dev/null && now && echo {TOOK} $a $NOW");
        let text = self.command(&line)?;
        let (from, to) =
            readings(&text).with_context(|| format!("dom0: `{what}` failed: {text}"))?;
        Ok(((to - from) / 1000, text))
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn succeed(&mut self, what: &str) -> Result<String> {
        let text = self.command(&format!("{what}; echo {STATUS} $?"))?;
        if marked_number(&text, STATUS) != Some(0) {
            bail!("{}: dom0: `{what}` failed: {text}", self.name);
        }
        Ok(text)
    }

    /// The number that a command prints.
    pub fn number(&mut self, what: &str) -> Result<u64> {
        let text = self.command(&format!("echo {NUMBER} $({what})"))?;
        marked_number(&text, NUMBER)
            .with_context(|| format!("{}: dom0: `{what}` prints no number: {text}", self.name))
    }

    /// Waits until a command succeeds, which is tried every so many seconds.
    pub fn wait_for(&mut self, what: &str, seconds: u32) -> Result<()> {
        self.command(&format!("until {what}; do sleep {seconds}; done"))?;
        Ok(())
    }

    /// Writes `/tmp/NAME.cfg` for a guest: `settings` is what its configuration has besides name, type and command line, with spaces
    /// between.
    pub fn configure(&mut self, name: &str, settings: &str, options: &str) -> Result<()> {
        let always = self.settings;
        self.succeed(&format!(
            "echo \"name='{name}' type='pvh' {always} {settings}\" | tr ' ' '\\n' >/tmp/{name}.cfg"
        ))?;
        self.succeed(&format!("echo \"extra='{options}'\" >>/tmp/{name}.cfg"))?;
        Ok(())
    }

    /// Where what a guest prints is kept, by either toolstack.
    pub fn guest_log(name: &str) -> String {
        format!("/var/log/xen/console/guest-{name}.log")
    }

    /// Presses debug keys of the hypervisor; returns what it printed until `end`, with it and the rest of it.
    pub fn debug_keys(&mut self, keys: &str, end: &str) -> Result<String> {
        self.running.console().send(SWITCH)?;
        self.running.console().send(keys.as_bytes())?;
        let text = self.running.console().expect(end, LIMIT)?;
        self.running.console().send(SWITCH)?;
        // The shell has seen none of it. What comes after the end may belong to it.
        Ok(text + &self.command("")?)
    }

    /// Powers the machine off; returns all that was printed.
    pub fn finish(mut self) -> Result<String> {
        self.running.console().send_line("poweroff")?;
        let outcome = self.running.wait_exit(LIMIT);
        if outcome != Outcome::PowerOff {
            let log = self.running.log().display();
            bail!("{}: {outcome}; see {log}", self.name);
        }
        std::fs::remove_file(&self.iso)?;
        Ok(self.running.console().text())
    }
}

/// The number behind a mark that begins a line. The echo of the command that printed it has none there.
fn marked_number(text: &str, mark: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(mark))
        .find_map(|rest| rest.trim().parse().ok())
}

fn readings(text: &str) -> Option<(u64, u64)> {
    let (from, to) = two_words(text, TOOK)?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// The two words of the line that begins with `mark`.
pub(super) fn two_words<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(mark))?
        .trim()
        .split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_taken_from_the_commands_echo() {
        let text = "echo number: $(xl domid a)\r\nnumber: 3\r\ndom0# ";
        assert_eq!(marked_number(text, NUMBER), Some(3));
        assert_eq!(marked_number("false; echo status: $?\r\n", STATUS), None);
    }

    #[test]
    fn readings_are_not_taken_from_the_commands_echo() {
        let text = "now; { true; } && now && echo took: $a $NOW\r\ntook: 1234 1240\r\ndom0# ";
        assert_eq!(readings(text), Some((1234, 1240)));
        assert_eq!(readings("sh: ox: not found"), None);
    }
}
