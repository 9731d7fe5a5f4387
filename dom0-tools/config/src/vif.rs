//! Network interfaces of a domain, in the syntax of xl-network-configuration(5): `mac=00:16:3e:00:00:01,bridge=xenbr0`.
//!
//! Beyond xl's there are `type=ox` or `type=kernel`, which back-end serves the interface, and for the first of them `offload=0` (no large
//! packets, complete checksums), `queues=N` and `filter=0` (the guest may send from any address).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::nearest_of;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = VifError;

    fn try_from(text: String) -> Result<Self, VifError> {
        parse_mac(&text).ok_or_else(|| VifError {
            spec: text,
            message: "not an Ethernet address".to_owned(),
        })
    }
}

/// How much a guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes in a second.
    pub bytes_per_second: u64,
    /// How often the credit is renewed, in microseconds.
    pub interval_us: u32,
}

/// Who serves an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VifBackend {
    /// `oxnet`.
    #[default]
    Ox,
    /// The kernel's own back end.
    Kernel,
}

/// One network interface; what is not given is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VifSpec {
    /// Address inside the guest; made up when not given.
    pub mac: Option<Mac>,
    /// Bridge in the back-end's domain.
    pub bridge: Option<String>,
    /// Interface that routes for the guest.
    pub gatewaydev: Option<String>,
    /// Addresses that the guest may use.
    pub ip: Option<String>,
    /// Script that sets the interface up.
    pub script: Option<String>,
    /// Domain that serves the interface.
    pub backend: Option<String>,
    /// Name of the interface in that domain.
    pub vifname: Option<String>,
    /// Limit on what the guest sends.
    pub rate: Option<Rate>,
    /// Number of the interface.
    pub devid: Option<u32>,
    /// Largest IP packet in bytes.
    pub mtu: Option<u32>,
    /// Whether the guest shall trust the back-end.
    pub trusted: Option<bool>,
    /// Who serves it.
    #[serde(default)]
    pub backend_type: VifBackend,
    /// Whether large packets and incomplete checksums may pass.
    #[serde(default)]
    pub offload: Option<bool>,
    /// Queues at most.
    #[serde(default)]
    pub queues: Option<u32>,
    /// Whether the guest may send from its own address only.
    #[serde(default)]
    pub filter: Option<bool>,
}

/// Why a text is no network interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("vif {spec:?}: {message}")]
pub struct VifError {
    spec: String,
    message: String,
}

const NAMES: &[&str] = &[
    "mac",
    "bridge",
    "gatewaydev",
    "netdev",
    "type",
    "model",
    "vifname",
    "script",
    "ip",
    "backend",
    "rate",
    "devid",
    "mtu",
    "trusted",
    "untrusted",
    "offload",
    "queues",
    "filter",
];

impl FromStr for VifSpec {
    type Err = VifError;

    fn from_str(spec: &str) -> Result<Self, VifError> {
        let mut vif = VifSpec::default();
        for parameter in spec
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            vif.parameter(parameter).map_err(|message| VifError {
                spec: spec.to_owned(),
                message,
            })?;
        }
        Ok(vif)
    }
}

impl VifSpec {
    fn parameter(&mut self, text: &str) -> Result<(), String> {
        let Some((name, value)) = text.split_once('=') else {
            self.trusted = Some(match text {
                "trusted" => true,
                "untrusted" => false,
                other => return Err(unknown(other)),
            });
            return Ok(());
        };
        let (name, value) = (name.trim(), value.trim());
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        let string = Some(value.to_owned());
        match name {
            "mac" => {
                let mac = parse_mac(value)
                    .filter(|mac| mac.0[0] & 1 == 0)
                    .ok_or_else(|| {
                        format!(
                            "{value:?} is not the address of one interface, as 00:16:3e:00:00:01 is"
                        )
                    })?;
                self.mac = Some(mac);
            }
            "bridge" => self.bridge = string,
            "gatewaydev" | "netdev" => self.gatewaydev = string,
            "ip" => self.ip = string,
            "script" => self.script = string,
            "backend" => self.backend = string,
            "vifname" => self.vifname = string,
            "rate" => {
                self.rate = Some(parse_rate(value).ok_or_else(|| {
                    format!("{value:?} is not a rate, as 10Mb/s or 1MB/s@20ms are")
                })?);
            }
            "devid" => self.devid = Some(number(name, value)?),
            "mtu" => self.mtu = Some(number(name, value)?),
            "offload" => self.offload = Some(switch(name, value)?),
            "filter" => self.filter = Some(switch(name, value)?),
            "queues" => self.queues = Some(number(name, value)?),
            "type" if matches!(value, "vif" | "ox") => self.backend_type = VifBackend::Ox,
            "type" if value == "kernel" => self.backend_type = VifBackend::Kernel,
            "type" | "model" => {
                return Err(format!(
                    "{name}={value} asks for an emulated interface, which a PVH domain does not have; leave {name} out"
                ));
            }
            other if other.starts_with("colo_") || matches!(other, "forwarddev" | "accel") => {
                return Err(format!(
                    "{other} (replication and acceleration) is not supported"
                ));
            }
            other => return Err(unknown(other)),
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    match nearest_of(name, NAMES.iter().copied()) {
        Some(near) => format!("unknown parameter {name:?}; did you mean {near:?}?"),
        None => format!("unknown parameter {name:?}; known are {}", NAMES.join(", ")),
    }
}

fn number(name: &str, value: &str) -> Result<u32, String> {
    value
        .parse()
        .map_err(|_| format!("{name} must be a number, not {value:?}"))
}

fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "0" | "no" | "off" => Ok(false),
        "1" | "yes" | "on" => Ok(true),
        _ => Err(format!("{name} must be 0 or 1, not {value:?}")),
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !digits || part.is_empty() || part.len() > 2 {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

fn parse_rate(text: &str) -> Option<Rate> {
    const DEFAULT_INTERVAL_US: u32 = 50_000;
    let (speed, interval) = match text.split_once('@') {
        Some((speed, interval)) => (speed, Some(interval)),
        None => (text, None),
    };
    let (amount, unit) = split_number(speed.strip_suffix("/s")?)?;
    let (scale, bits) = match unit {
        "GB" => (1_000_000_000, false),
        "MB" => (1_000_000, false),
        "KB" => (1_000, false),
        "B" => (1, false),
        "Gb" => (1_000_000_000, true),
        "Mb" => (1_000_000, true),
        "Kb" => (1_000, true),
        "b" => (1, true),
        _ => return None,
    };
    let amount = amount.checked_mul(scale)?;
    let interval_us = match interval.map(split_number) {
        None => DEFAULT_INTERVAL_US,
        Some(parsed) => {
            let (count, unit) = parsed?;
            let scale = match unit {
                "us" | "u" => 1,
                "ms" | "m" => 1_000,
                "s" | "" => 1_000_000,
                _ => return None,
            };
            u32::try_from(count.checked_mul(scale)?).ok()?
        }
    };
    let bytes_per_second = if bits { amount / 8 } else { amount };
    (bytes_per_second > 0 && interval_us > 0).then_some(Rate {
        bytes_per_second,
        interval_us,
    })
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}
