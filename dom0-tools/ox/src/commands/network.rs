//! `ox network-attach`, `ox network-detach` and `ox network-list`.

use std::io::Write;

use oxen_config::VifSpec;
use serde::Serialize;

use super::block::{change_record, guest, removal, state_name};
use crate::cli::BlockList;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::vifs::{self, KINDS, Vif};
use crate::{disks, names, output, tree};

/// A network card that a domain has.
#[derive(Debug, Serialize)]
struct Row {
    domain: u16,
    number: u32,
    mac: String,
    bridge: String,
    /// `ox` or `kernel`.
    backend: &'static str,
    #[serde(skip)]
    back: String,
    state: &'static str,
    /// Why it is not served.
    error: Option<String>,
}

/// Gives a domain a network card, also for its later lives.
pub fn attach(word: &str, spec: &[String], host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = guest(word, host)?;
    let domid = state.domid;
    let mut spec: VifSpec =
        (spec.join(",").parse()).map_err(|error| Failure::Usage(format!("{error}")))?;
    let taken = rows(domid, host)?;
    let is_free = |number: &u32| taken.iter().all(|row| row.number != *number);
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
    let mac = vif.mac(state.uuid);
    if taken.iter().any(|row| row.mac == mac.to_string()) {
        return Err(Failure::Usage(format!(
            "domain {domid} has a network card with the address {mac} already; give this one another mac"
        )));
    }
    (host.store()?.apply(&vif.creation(domid, state.uuid)))
        .context(|| format!("attach a network card to domain {domid}"))?;
    if let Err(failure) = vif.wait(host, domid) {
        // It was never there for the guest.
        let nodes = removal(&vif.back(domid), &vifs::front(domid, number));
        let _ = host.store()?.apply(&nodes);
        return Err(failure);
    }
    change_record(&state, host, |config| config.vifs.push(spec.clone()))
}

/// Takes a network card away from a domain, also for its later lives.
pub fn detach(word: &str, device: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = guest(word, host)?;
    let domid = state.domid;
    let wanted: Option<u32> = device.parse().ok();
    let row = rows(domid, host)?.into_iter().find(|row| match wanted {
        Some(number) => row.number == number,
        None => row.mac.eq_ignore_ascii_case(device),
    });
    let row = row.ok_or_else(|| {
        Failure::Usage(format!(
            "domain {domid} has no network card {device}; `ox network-list` shows all"
        ))
    })?;
    if !disks::close(host, &row.back)? {
        // Nothing is lost with it that a network does not lose.
        log::warn!(
            "domain {domid} has not let go of network card {}; it is taken away",
            row.number
        );
    }
    let number = row.number;
    let nodes = removal(&row.back, &vifs::front(domid, number));
    (host.store()?.apply(&nodes))
        .context(|| format!("detach network card {number} from domain {domid}"))?;
    change_record(&state, host, |config| {
        // Those without a number of their own have the numbers of their places: these must not change.
        for (vif, place) in config.vifs.iter_mut().zip(0..) {
            vif.devid.get_or_insert(place);
        }
        config.vifs.retain(|vif| vif.devid != Some(number));
    })
}

/// Shows the network cards of domains.
pub fn list(
    arguments: &BlockList,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (state, _) in names::resolve_all(host, &arguments.domains)? {
        all.extend(rows(state.domid, host)?);
    }
    if arguments.json.json {
        return output::json(out, &all);
    }
    let header = ["Dom", "Idx", "MAC", "Bridge", "Backend", "State"];
    let cells = all.into_iter().map(|row| {
        let state = match row.error {
            Some(error) => format!("{} ({error})", row.state),
            None => row.state.to_owned(),
        };
        vec![
            row.domain.to_string(),
            row.number.to_string(),
            row.mac,
            row.bridge,
            row.backend.to_owned(),
            state,
        ]
    });
    output::table(out, &header, &[0, 1], cells)
}

fn rows(domid: u16, host: &mut dyn Toolstack) -> Result<Vec<Row>, Failure> {
    let about = || format!("list the network cards of domain {domid}");
    let store = host.store()?;
    let mut rows = Vec::new();
    for (kind, backend) in KINDS {
        let names = store.list(&tree::back_ends(kind, domid)).context(about)?;
        for number in names.iter().filter_map(|name| name.parse().ok()) {
            let back = vifs::back(kind, domid, number);
            let mut read = |key: &str| store.read(&format!("{back}/{key}")).context(about);
            rows.push(Row {
                domain: domid,
                number,
                mac: read("mac")?.unwrap_or_default(),
                bridge: read("bridge")?.unwrap_or_default(),
                backend,
                state: state_name(read("state")?.as_deref()),
                error: disks::error(store, &back).context(about)?,
                back,
            });
        }
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}
