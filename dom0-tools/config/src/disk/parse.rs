//! Reading of disk specifications.

use std::str::FromStr;

use super::error::DiskError;
use super::{DiskBackend, DiskFormat, DiskProtocol, DiskSpec, vdev};
use crate::keys::nearest_of;

const NAMES: &[&str] = &[
    "target",
    "format",
    "vdev",
    "access",
    "devtype",
    "cdrom",
    "backend",
    "backendtype",
    "script",
    "specification",
    "direct-io-safe",
    "discard",
    "no-discard",
    "persistent",
    "no-persistent",
    "trusted",
    "untrusted",
];

/// Replication parameters of xl, which are no part of Oxen.
const COLO: &[&str] = &[
    "colo",
    "no-colo",
    "colo-host",
    "colo-port",
    "colo-export",
    "active-disk",
    "hidden-disk",
];

/// Prefixes of the old form `phy:/dev/sda,xvda,w`, with the format that each stands for.
const PREFIXES: &[(&str, DiskFormat)] = &[
    ("raw", DiskFormat::Raw),
    ("qcow", DiskFormat::Qcow),
    ("qcow2", DiskFormat::Qcow2),
    ("vhd", DiskFormat::Vhd),
    ("phy", DiskFormat::Raw),
    ("file", DiskFormat::Raw),
    ("aio", DiskFormat::Raw),
    ("tapdisk", DiskFormat::Raw),
    ("tap", DiskFormat::Raw),
    ("tap2", DiskFormat::Raw),
    ("ioemu", DiskFormat::Raw),
];

/// Positional parameters, in their order: those that are not given by name take the others' places.
const PLACES: usize = 4;
const TARGET: usize = 0;
const FORMAT: usize = 1;
const VDEV: usize = 2;
const ACCESS: usize = 3;

/// What has been read so far.
#[derive(Default)]
struct Reader<'a> {
    spec: &'a str,
    target: Option<&'a str>,
    format: Option<DiskFormat>,
    vdev: Option<&'a str>,
    read_only: Option<bool>,
    cdrom: Option<bool>,
    rest: DiskSpec,
    /// What was given by name or by its place, empty or not: of these positional parameters, in their order.
    given: [bool; PLACES],
    /// The old form has no format among its positional parameters.
    prefixed: bool,
}

impl FromStr for DiskSpec {
    type Err = DiskError;

    fn from_str(spec: &str) -> Result<Self, DiskError> {
        Self::from_words(&[spec])
    }
}

impl DiskSpec {
    /// Reads a disk that is described in several words, as on a command line: `target=` ends with its word only.
    ///
    /// # Errors
    /// As for a disk in a configuration.
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, DiskError> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let spec = words.join(",");
        let mut reader = Reader {
            spec: &spec,
            ..Reader::default()
        };
        for (nth, word) in words.into_iter().enumerate() {
            let word = word.trim_start();
            let word = if nth == 0 { reader.prefix(word)? } else { word };
            reader.word(word)?;
        }
        reader.finish()
    }
}

impl<'a> Reader<'a> {
    /// Reads parameters, up to the end or to a target by name.
    fn word(&mut self, mut rest: &'a str) -> Result<(), DiskError> {
        loop {
            let start = rest.trim_start();
            // By name the target takes all that follows, commas and blanks too.
            if let Some(target) = start.strip_prefix("target=") {
                if self.target.is_some_and(|target| !target.is_empty()) {
                    return Err(self.twice("target"));
                }
                self.given[TARGET] = true;
                self.target = Some(target);
                return Ok(());
            }
            let (parameter, more) = match start.split_once(',') {
                Some((parameter, more)) => (parameter, Some(more)),
                None => (start, None),
            };
            if !(parameter.is_empty() && more.is_none()) {
                self.parameter(parameter.trim_end())?;
            }
            match more {
                Some(more) => rest = more,
                None => return Ok(()),
            }
        }
    }

    fn twice(&self, parameter: &'static str) -> DiskError {
        DiskError::Twice {
            spec: self.spec.to_owned(),
            parameter,
        }
    }

    fn bad_value(&self, parameter: &'static str, value: &str, allowed: &[&str]) -> DiskError {
        DiskError::Value {
            spec: self.spec.to_owned(),
            parameter,
            value: value.to_owned(),
            allowed: allowed.join(", "),
        }
    }

    fn unknown(&self, name: &str) -> DiskError {
        DiskError::Unknown {
            spec: self.spec.to_owned(),
            name: name.to_owned(),
            nearest: nearest_of(name, NAMES.iter().copied()),
        }
    }

    fn named<T: Copy>(
        &self,
        parameter: &'static str,
        value: &str,
        names: &[(&'static str, T)],
    ) -> Result<T, DiskError> {
        let found = names.iter().find(|(name, _)| *name == value);
        found.map(|(_, named)| *named).ok_or_else(|| {
            let allowed: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            self.bad_value(parameter, value, &allowed)
        })
    }

    /// Takes the prefix of the old form off.
    fn prefix(&mut self, text: &'a str) -> Result<&'a str, DiskError> {
        let Some((prefix, rest)) = text.split_once(':') else {
            return Ok(text);
        };
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(text);
        }
        self.format = Some(self.named("the prefix", prefix, PREFIXES)?);
        self.prefixed = true;
        Ok(rest)
    }

    fn parameter(&mut self, text: &'a str) -> Result<(), DiskError> {
        if let Some((name, value)) = text.split_once('=') {
            return self.keyed(name, value);
        }
        match text {
            "cdrom" => self.cdrom = Some(true),
            "direct-io-safe" => self.rest.direct_io_safe = true,
            "discard" => self.rest.discard = Some(true),
            "no-discard" => self.rest.discard = Some(false),
            "persistent" => self.rest.persistent = Some(true),
            "no-persistent" => self.rest.persistent = Some(false),
            "trusted" => self.rest.trusted = Some(true),
            "untrusted" => self.rest.trusted = Some(false),
            colo if COLO.contains(&colo) => return Err(self.colo()),
            _ => return self.positional(text),
        }
        Ok(())
    }

    fn colo(&self) -> DiskError {
        DiskError::Incomplete {
            spec: self.spec.to_owned(),
            what: "replication of disks (the colo parameters) is not supported",
        }
    }

    fn keyed(&mut self, name: &'a str, value: &'a str) -> Result<(), DiskError> {
        let text = (!value.is_empty()).then(|| value.to_owned());
        match name {
            "format" => self.set_format(value)?,
            "vdev" => self.set_vdev(value)?,
            "access" => self.set_access(value)?,
            "devtype" => {
                let names = [("cdrom", true), ("disk", false)];
                self.cdrom = Some(self.named("devtype", value, &names)?);
            }
            "backend" => self.rest.backend = text,
            "backendtype" => {
                self.rest.backend_type =
                    Some(self.named("backendtype", value, &DiskBackend::NAMES)?);
            }
            "specification" => {
                self.rest.protocol = self.named("specification", value, &DiskProtocol::NAMES)?;
            }
            "script" => self.rest.script = text,
            colo if COLO.contains(&colo) => return Err(self.colo()),
            other => return Err(self.unknown(other)),
        }
        Ok(())
    }

    fn positional(&mut self, text: &'a str) -> Result<(), DiskError> {
        // The old form has no place for the format.
        let is_free = |place: &usize| !(self.given[*place] || self.prefixed && *place == FORMAT);
        match (0..PLACES).find(is_free) {
            Some(TARGET) => {
                self.given[TARGET] = true;
                self.target = Some(text);
                Ok(())
            }
            Some(FORMAT) => self.set_format(text),
            Some(VDEV) => match text.split_once(':') {
                Some((vdev, kind)) => {
                    let names = [("cdrom", true), ("disk", false)];
                    self.cdrom = Some(self.named("the device's type", kind, &names)?);
                    self.set_vdev(vdev)
                }
                None => self.set_vdev(text),
            },
            Some(_) => self.set_access(text),
            None => Err(self.unknown(text)),
        }
    }

    fn set_format(&mut self, value: &str) -> Result<(), DiskError> {
        self.given[FORMAT] = true;
        if value.is_empty() {
            return Ok(());
        }
        if self.format.is_some() {
            return Err(self.twice("format"));
        }
        self.format = Some(self.named("format", value, &DiskFormat::NAMES)?);
        Ok(())
    }

    fn set_vdev(&mut self, value: &'a str) -> Result<(), DiskError> {
        self.given[VDEV] = true;
        if value.is_empty() {
            return Ok(());
        }
        if self.vdev.replace(value).is_some() {
            return Err(self.twice("vdev"));
        }
        if vdev::number(value).is_none() {
            return Err(self.bad_value("vdev", value, &["a name such as xvda"]));
        }
        Ok(())
    }

    fn set_access(&mut self, value: &str) -> Result<(), DiskError> {
        self.given[ACCESS] = true;
        if value.is_empty() {
            return Ok(());
        }
        let names = [("ro", true), ("r", true), ("rw", false), ("w", false)];
        let read_only = self.named("access", value, &names)?;
        if self.read_only.replace(read_only).is_some() {
            return Err(self.twice("access"));
        }
        Ok(())
    }

    fn finish(self) -> Result<DiskSpec, DiskError> {
        let incomplete = |what| DiskError::Incomplete {
            spec: self.spec.to_owned(),
            what,
        };
        let cdrom = self.cdrom.unwrap_or(false);
        let target = self.target.filter(|target| !target.is_empty());
        let Some(vdev) = self.vdev else {
            return Err(incomplete(
                "the device that the guest sees is missing; add vdev=xvda",
            ));
        };
        let format = match (target, self.format) {
            (None, _) if cdrom => DiskFormat::Empty,
            (None, Some(DiskFormat::Empty)) => DiskFormat::Empty,
            (None, _) => return Err(incomplete("the target is missing; add target=/path")),
            (Some(_), format) => format.unwrap_or_default(),
        };
        Ok(DiskSpec {
            target: target.map(str::to_owned),
            format,
            vdev: vdev.to_owned(),
            // As for xl, whatever `access` says.
            read_only: cdrom || self.read_only.unwrap_or(false),
            cdrom,
            ..self.rest
        })
    }
}
