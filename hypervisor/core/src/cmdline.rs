//! The hypervisor's command line, in Xen's own syntax where the option is Xen's.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use log::LevelFilter;

use crate::schedule::RateLimit;

/// `com1=` and `com2=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Bits a second; `None` keeps what is set (`auto`).
    pub baud: Option<u32>,
    /// First port, if not the customary one.
    pub base: Option<u16>,
}

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `dom0_mem=`: bytes.
    pub dom0_mem: Option<u64>,
    /// `dom0_max_vcpus=`.
    pub dom0_max_vcpus: Option<u32>,
    /// `dom0_vcpus_pin`: each of its vCPUs runs on one CPU only.
    pub dom0_vcpus_pin: bool,
    /// `com1=`.
    pub com1: Serial,
    /// `com2=`.
    pub com2: Option<Serial>,
    /// `console=`: whether the first serial port is written to.
    pub console_com1: bool,
    /// `console=`: whether the second serial port is written to instead.
    pub console_com2: bool,
    /// `console=`: whether the screen is written to.
    pub console_vga: bool,
    /// `loglvl=`.
    pub log_level: LevelFilter,
    /// `noreboot`.
    pub no_reboot: bool,
    /// `cpuinfo`.
    pub cpuinfo: bool,
    /// `sched_ratelimit_us=`.
    pub rate_limit: RateLimit,
    /// Let the CPU virtualize local APICs where it can.
    pub apic_virtualization: bool,
    /// What could not be understood: each names the option and what is valid.
    pub problems: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dom0_mem: None,
            dom0_max_vcpus: None,
            dom0_vcpus_pin: false,
            com1: Serial {
                baud: Some(115_200),
                base: None,
            },
            com2: None,
            console_com1: true,
            console_com2: false,
            console_vga: true,
            log_level: LevelFilter::Info,
            no_reboot: false,
            cpuinfo: false,
            rate_limit: RateLimit::default(),
            apic_virtualization: true,
            problems: Vec::new(),
        }
    }
}

type Apply = fn(&mut Options, Option<&str>) -> Result<(), String>;

/// Options by name.
const OPTIONS: &[(&str, Apply)] = &[
    ("dom0_mem", |options, value| {
        options.dom0_mem = dom0_mem(value.unwrap_or(""))?;
        Ok(())
    }),
    ("dom0_max_vcpus", |options, value| {
        options.dom0_max_vcpus = Some(max_vcpus(value.unwrap_or(""))?);
        Ok(())
    }),
    ("dom0_vcpus_pin", |options, value| {
        options.dom0_vcpus_pin = boolean(value)?;
        Ok(())
    }),
    ("com1", |options, value| {
        options.com1 = serial(value.unwrap_or(""))?;
        Ok(())
    }),
    ("com2", |options, value| {
        options.com2 = Some(serial(value.unwrap_or(""))?);
        Ok(())
    }),
    ("console", |options, value| {
        consoles(options, value.unwrap_or(""))
    }),
    ("loglvl", |options, value| {
        options.log_level = level(value.unwrap_or(""))?;
        Ok(())
    }),
    // The level for what guests cause is the same log's here.
    ("guest_loglvl", |_, value| {
        level(value.unwrap_or("")).map(|_| ())
    }),
    ("noreboot", |options, value| {
        options.no_reboot = boolean(value)?;
        Ok(())
    }),
    ("apicv", |options, value| {
        options.apic_virtualization = boolean(value)?;
        Ok(())
    }),
    ("sched_ratelimit_us", |options, value| {
        options.rate_limit = rate_limit(value.unwrap_or(""))?;
        Ok(())
    }),
    ("cpuinfo", |options, value| {
        options.cpuinfo = boolean(value)?;
        Ok(())
    }),
];

impl Options {
    /// Reads a command line. Nothing is dropped silently: see [`Options::problems`].
    pub fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for word in line.split_ascii_whitespace() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let (known, value) = match (OPTIONS.iter().find(|(known, _)| *known == name), value) {
                (None, None) => {
                    let bare = name.strip_prefix("no-");
                    (
                        OPTIONS.iter().find(|(known, _)| Some(*known) == bare),
                        Some("no"),
                    )
                }
                found => found,
            };
            let result = match known {
                Some((_, apply)) => apply(&mut options, value),
                None => Err("not known; it has no effect".to_string()),
            };
            if let Err(problem) = result {
                options.problems.push(format!("option '{word}': {problem}"));
            }
        }
        options
    }
}

/// A size with a suffix; without one it counts KiB, as Xen has it.
fn size(text: &str) -> Result<u64, String> {
    let invalid = || format!("'{text}' is not a size such as 512M or 2G");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'B' | b'b') => (&text[..text.len() - 1], 0),
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 10),
    };
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).ok_or_else(invalid)
}

/// `dom0_mem=<size>[,min:<size>][,max:<size>]`: what dom0 starts with is the plain size, kept within the bounds.
fn dom0_mem(text: &str) -> Result<Option<u64>, String> {
    let (mut plain, mut least, mut most) = (None, None, None);
    for part in text.split(',') {
        if let Some(value) = part.strip_prefix("min:") {
            least = Some(size(value)?);
        } else if let Some(value) = part.strip_prefix("max:") {
            most = Some(size(value)?);
        } else {
            plain = Some(size(part)?);
        }
    }
    let wanted = plain.or(most);
    Ok(wanted.map(|bytes| bytes.max(least.unwrap_or(0)).min(most.unwrap_or(u64::MAX))))
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let limit = text.parse().ok().and_then(RateLimit::from_micros);
    limit.ok_or_else(|| {
        format!("'{text}' is no number of microseconds from 100 to 500000, or 0 for no limit")
    })
}

/// `<number>` or `<min>-<max>`: the upper one.
fn max_vcpus(text: &str) -> Result<u32, String> {
    let last = text.rsplit('-').next().unwrap_or(text);
    match last.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!(
            "'{text}' is not a number of vCPUs such as 4 or 1-4"
        )),
    }
}

/// `<baud>[,<frame>[,<base>[,<irq>]]]`; the frame must be 8n1.
fn serial(text: &str) -> Result<Serial, String> {
    let mut fields = text.split(',');
    let baud = match fields.next().unwrap_or("") {
        "auto" => None,
        // A clock may stand behind the rate.
        rate => {
            let rate = rate.split('/').next().unwrap_or(rate);
            Some(
                rate.parse()
                    .ok()
                    .filter(|&baud| baud > 0)
                    .ok_or_else(|| format!("'{rate}' is not a rate such as 115200"))?,
            )
        }
    };
    if let Some(frame) = fields.next()
        && frame != "8n1"
    {
        return Err(format!("'{frame}' is not supported; use 8n1"));
    }
    let base = match fields.next() {
        None | Some("") => None,
        Some(base) => {
            let digits = base.strip_prefix("0x").unwrap_or(base);
            let port = u16::from_str_radix(digits, 16)
                .map_err(|_| format!("'{base}' is not a port such as 0x3f8"))?;
            Some(port)
        }
    };
    Ok(Serial { baud, base })
}

fn consoles(options: &mut Options, text: &str) -> Result<(), String> {
    (
        options.console_com1,
        options.console_com2,
        options.console_vga,
    ) = (false, false, false);
    for part in text.split(',') {
        match part {
            "com1" => options.console_com1 = true,
            "com2" => options.console_com2 = true,
            "vga" => options.console_vga = true,
            "none" => {}
            other => {
                return Err(format!(
                    "'{other}' is not a console; use com1, com2, vga or none"
                ));
            }
        }
    }
    Ok(())
}

/// `<level>[/<rate-limited level>]`.
fn level(text: &str) -> Result<LevelFilter, String> {
    match text.split('/').next().unwrap_or(text) {
        "all" | "debug" => Ok(LevelFilter::Debug),
        "info" => Ok(LevelFilter::Info),
        "warning" => Ok(LevelFilter::Warn),
        "error" => Ok(LevelFilter::Error),
        "none" => Ok(LevelFilter::Off),
        other => Err(format!(
            "'{other}' is not a level; use all, debug, info, warning, error or none"
        )),
    }
}

fn boolean(value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("" | "yes" | "on" | "true" | "enable" | "1") => Ok(true),
        Some("no" | "off" | "false" | "disable" | "0") => Ok(false),
        Some(other) => Err(format!("'{other}' is neither yes nor no")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xens_own_spellings_are_understood() {
        let options = Options::parse(
            "dom0_mem=1G,max:2G dom0_max_vcpus=1-4 com1=115200,8n1 console=com1,vga loglvl=all noreboot",
        );
        assert_eq!(options.dom0_mem, Some(1 << 30));
        assert_eq!(options.dom0_max_vcpus, Some(4));
        assert_eq!(
            options.com1,
            Serial {
                baud: Some(115_200),
                base: None
            }
        );
        assert!(
            options.console_com1 && options.console_vga && options.no_reboot && !options.cpuinfo
        );
        assert_eq!(options.log_level, LevelFilter::Debug);
        let limit = |line| Options::parse(line).rate_limit.micros();
        assert_eq!(limit("sched_ratelimit_us=1000"), 1000);
        assert_eq!(limit("sched_ratelimit_us=0"), 0);
        assert_eq!(options.problems, Vec::<String>::new());
    }

    #[test]
    fn sizes_follow_their_suffix_and_bounds() {
        assert_eq!(Options::parse("dom0_mem=524288").dom0_mem, Some(512 << 20));
        assert_eq!(
            Options::parse("dom0_mem=max:768M").dom0_mem,
            Some(768 << 20)
        );
        assert_eq!(
            Options::parse("dom0_mem=100M,min:128M").dom0_mem,
            Some(128 << 20)
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let options = Options::parse(
            "frobnicate dom0_mem=lots console=com9 no-cpuinfo com1=9600,7e1,0x2f8 sched_ratelimit_us=99",
        );
        assert_eq!(options.problems.len(), 5);
        assert!(options.problems[0].contains("'frobnicate'"));
        assert!(options.problems[1].contains("512M"));
        assert!(options.problems[2].contains("com9"));
        assert!(options.problems[3].contains("8n1"));
        assert!(options.problems[4].contains("from 100 to 500000"));
    }

    #[test]
    fn switches_can_be_turned_off_both_ways() {
        assert!(!Options::parse("noreboot=no").no_reboot);
        assert!(!Options::parse("noreboot no-noreboot").no_reboot);
    }

    #[test]
    fn a_port_is_hexadecimal() {
        let options = Options::parse("com2=auto,8n1,0x2f8 console=com2");
        assert_eq!(
            options.com2,
            Some(Serial {
                baud: None,
                base: Some(0x2F8)
            })
        );
        assert!(options.console_com2 && !options.console_com1);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in ".{0,200}") {
            Options::parse(&line);
        }
    }
}
