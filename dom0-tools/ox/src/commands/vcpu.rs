//! `ox vcpu-list`, `vcpu-pin` and `vcpu-set`.

use std::collections::BTreeSet;
use std::io::Write;

use oxen_config::cpulist::format_set;
use oxen_config::{CpuList, HostCpus};
use serde::Serialize;

use super::write_nodes;
use crate::cli::Json;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::{names, output, tree};

/// A vCPU in JSON.
#[derive(Serialize)]
struct Row {
    name: Option<String>,
    domid: u16,
    vcpu: u32,
    cpu: Option<u32>,
    state: String,
    cpu_time_ns: u64,
    /// Nothing if the hypervisor cannot tell.
    hard_affinity: Option<BTreeSet<u32>>,
    soft_affinity: Option<BTreeSet<u32>>,
}

/// `ox vcpu-list`.
pub fn list(
    words: &[String],
    json: Json,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let domains = names::resolve_all(host, words)?;
    let xen = host.xen()?;
    let cpus = xen
        .cpus()
        .context(|| "look at the machine's CPUs".to_owned())?;
    for (state, name) in domains {
        let domid = state.domid;
        for vcpu in 0..state.vcpus {
            let about = || format!("look at vCPU {vcpu} of domain {domid}");
            let info = xen.vcpu(domid, vcpu).context(about)?;
            let (hard_affinity, soft_affinity) = match xen.affinity(domid, vcpu).context(about) {
                Ok((hard, soft)) => (Some(hard), Some(soft)),
                // The rest of the list is worth having.
                Err(Failure::NotImplemented(_)) => (None, None),
                Err(failure) => return Err(failure),
            };
            rows.push(Row {
                name: name.clone(),
                domid,
                vcpu,
                cpu: info.online.then_some(info.cpu),
                state: [
                    (info.running, 'r'),
                    (info.blocked, 'b'),
                    (!info.online, 'p'),
                ]
                .map(|(set, letter)| if set { letter } else { '-' })
                .iter()
                .collect(),
                cpu_time_ns: info.cpu_time_ns,
                hard_affinity,
                soft_affinity,
            });
        }
    }
    if json.json {
        return output::json(out, &rows);
    }
    let header = [
        "Name",
        "ID",
        "VCPU",
        "CPU",
        "State",
        "Time(s)",
        "Affinity (Hard / Soft)",
    ];
    let table = rows.into_iter().map(|row| {
        vec![
            row.name.unwrap_or_else(|| "(null)".to_owned()),
            row.domid.to_string(),
            row.vcpu.to_string(),
            row.cpu
                .map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
            row.state,
            output::seconds(row.cpu_time_ns),
            format!(
                "{} / {}",
                set_text(row.hard_affinity.as_ref(), &cpus),
                set_text(row.soft_affinity.as_ref(), &cpus)
            ),
        ]
    });
    output::table(out, &header, &[1, 2, 3, 4, 5], table)
}

fn set_text(set: Option<&BTreeSet<u32>>, cpus: &HostCpus) -> String {
    let Some(set) = set else {
        return "?".to_owned();
    };
    if set.len() >= cpus.nodes.len() {
        "all".to_owned()
    } else {
        format_set(set)
    }
}

/// `ox vcpu-pin`.
pub fn pin(
    word: &str,
    vcpu: &str,
    hard: &str,
    soft: &str,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let state = names::resolve(host, word)?;
    let domid = state.domid;
    let vcpus = if vcpu == "all" {
        0..state.vcpus
    } else {
        let number = vcpu.parse().ok().filter(|number| *number < state.vcpus);
        let number: u32 = number.ok_or_else(|| {
            Failure::Usage(format!(
                "{vcpu:?} is no vCPU of domain {domid}: write all, or a number below {}",
                state.vcpus
            ))
        })?;
        number..number + 1
    };
    let xen = host.xen()?;
    let cpus = xen
        .cpus()
        .context(|| "look at the machine's CPUs".to_owned())?;
    let hard = resolve(hard, &cpus)?;
    let soft = resolve(soft, &cpus)?;
    for vcpu in vcpus {
        xen.set_affinity(domid, vcpu, hard.as_ref(), soft.as_ref())
            .context(|| format!("pin vCPU {vcpu} of domain {domid}"))?;
    }
    Ok(())
}

/// The CPUs that a word names; `-` leaves them as they are.
fn resolve(word: &str, cpus: &HostCpus) -> Result<Option<BTreeSet<u32>>, Failure> {
    if word == "-" {
        return Ok(None);
    }
    let list: CpuList = word
        .parse()
        .map_err(|error: oxen_config::cpulist::CpuListError| Failure::Usage(error.to_string()))?;
    let resolved = list.resolve(cpus);
    if resolved.is_empty() {
        return Err(Failure::Usage(format!(
            "{word:?} leaves none of this machine's {} CPUs to run on",
            cpus.nodes.len()
        )));
    }
    Ok(Some(resolved))
}

/// `ox vcpu-set`: the guest sees in xenstore which vCPUs it shall bring up or down.
pub fn set(word: &str, vcpus: u32, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = names::resolve(host, word)?;
    let domid = state.domid;
    if vcpus == 0 || vcpus > state.vcpus {
        return Err(Failure::Usage(format!(
            "domain {domid} can have 1 to {} vCPUs, not {vcpus}; maxvcpus= sets the most",
            state.vcpus
        )));
    }
    let nodes: Vec<_> = (0..state.vcpus)
        .map(|vcpu| {
            let online = tree::availability(vcpu < vcpus);
            (format!("cpu/{vcpu}/availability"), online.to_owned())
        })
        .collect();
    write_nodes(host, domid, &nodes, "set the vCPUs of")
}
