//! `ox network-attach`, `ox network-detach` and `ox network-list`.

use oxen_config::VifSpec;
use serde::Serialize;

use super::devices::{self, Common, Row};
use crate::devices::{Class, VIFS};
use crate::failure::Failure;
use crate::host::Toolstack;
use crate::vifs::Vif;

/// A network card that a domain has.
#[derive(Debug, Serialize)]
pub(super) struct VifRow {
    #[serde(flatten)]
    common: Common,
    mac: String,
    bridge: String,
}

impl Row for VifRow {
    const CLASS: &'static Class = &VIFS;
    const HEADER: &'static [&'static str] = &["Dom", "Idx", "MAC", "Bridge", "Backend", "State"];
    const RIGHT: &'static [usize] = &[0, 1];

    fn new(
        common: Common,
        read: &mut dyn FnMut(&str) -> Result<Option<String>, Failure>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            common,
            mac: read("mac")?.unwrap_or_default(),
            bridge: read("bridge")?.unwrap_or_default(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let common = &self.common;
        vec![
            common.domain.to_string(),
            common.number.to_string(),
            self.mac.clone(),
            self.bridge.clone(),
            common.backend.to_owned(),
            common.with_error(common.state),
        ]
    }
}

/// Gives a domain a network card, also for its later lives.
pub fn attach(word: &str, spec: &[String], host: &mut dyn Toolstack) -> Result<(), Failure> {
    let guest = devices::guest(word, host)?;
    let domid = guest.domid;
    let mut spec: VifSpec =
        (spec.join(",").parse()).map_err(|error| Failure::Usage(format!("{error}")))?;
    let taken: Vec<VifRow> = devices::rows(domid, host)?;
    let is_free = |number: &u32| taken.iter().all(|row| row.common.number != *number);
    let number = spec
        .devid
        .or_else(|| (0..).find(is_free))
        .unwrap_or_default();
    if !is_free(&number) {
        return Err(Failure::Usage(format!(
            "domain {domid} has a network card {number} already; `ox network-list` shows all"
        )));
    }
    // Its later lives find it in the same place.
    spec.devid = Some(number);
    let vif = Vif::check(&spec, number)?;
    let mac = vif.mac(guest.uuid);
    if taken.iter().any(|row| row.mac == mac.to_string()) {
        return Err(Failure::Usage(format!(
            "domain {domid} has a network card with the address {mac} already; give this one another mac"
        )));
    }
    let (device, creation) = (vif.device(domid), vif.creation(domid, guest.uuid));
    devices::make(&VIFS, &device, &vif.name(), &creation, host)?;
    guest.change(|config| config.vifs.push(spec.clone()))
}

/// Takes a network card away from a domain, also for its later lives.
pub fn detach(word: &str, device: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let guest = devices::guest(word, host)?;
    let domid = guest.domid;
    let wanted: Option<u32> = device.parse().ok();
    let mut rows = devices::rows(domid, host)?.into_iter();
    let row = rows.find(|row: &VifRow| match wanted {
        Some(number) => row.common.number == number,
        None => row.mac.eq_ignore_ascii_case(device),
    });
    let row = row.ok_or_else(|| {
        Failure::Usage(format!(
            "domain {domid} has no network card {device}; `ox network-list` shows all"
        ))
    })?;
    let vif = row.common.device;
    let number = vif.number;
    if !vif.close(host)? {
        // Nothing is lost with it that a network does not lose.
        log::warn!("domain {domid} has not let go of network card {number}; it is taken away");
    }
    devices::take_away(guest, &vif, host, |config| {
        // Those without a number of their own have the numbers of their places: these must not change.
        for (vif, place) in config.vifs.iter_mut().zip(0..) {
            vif.devid.get_or_insert(place);
        }
        config.vifs.retain(|vif| vif.devid != Some(number));
    })
}
