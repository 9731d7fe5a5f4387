//! Making of a domain: all of it, or nothing at all.

use std::collections::BTreeSet;

use oxen_config::{Affinity, CpuList, DomainConfig, HostCpus};
use uuid::Uuid;

use crate::failure::{Context, Failure};
use crate::host::{Built, Share, Toolstack};
use crate::{disks, tree, vifs};

/// Affinity of one vCPU.
type Pinning = (u32, Option<BTreeSet<u32>>, Option<BTreeSet<u32>>);

/// Builds a domain and starts it, unless it shall stay paused; gives its number. Whoever calls this holds the name.
pub fn make(
    host: &mut dyn Toolstack,
    config: &DomainConfig,
    uuid: Uuid,
    paused: bool,
) -> Result<u16, Failure> {
    let pinnings = pinnings(host, config)?;
    log::debug!("building {} as {uuid}", config.name);
    let built = host.xen()?.build(config, uuid)?;
    match announce(host, config, uuid, &built, &pinnings, paused) {
        Ok(()) => Ok(built.domid),
        Err(failure) => Err(undo(host, built.domid, uuid, failure)),
    }
}

fn pinnings(host: &mut dyn Toolstack, config: &DomainConfig) -> Result<Vec<Pinning>, Failure> {
    if config.cpus == Affinity::Any && config.cpus_soft == Affinity::Any {
        return Ok(Vec::new());
    }
    let cpus = host
        .xen()?
        .cpus()
        .context(|| "look at the machine's CPUs".to_owned())?;
    let resolve = |key: &'static str, list: Option<&CpuList>| {
        list.map(|list| resolve_list(key, list, &cpus)).transpose()
    };
    (0..config.maxvcpus)
        .map(|vcpu| {
            let hard = resolve("cpus", config.cpus.of(vcpu))?;
            let soft = resolve("cpus_soft", config.cpus_soft.of(vcpu))?;
            Ok((vcpu, hard, soft))
        })
        .collect()
}

fn resolve_list(
    key: &'static str,
    list: &CpuList,
    cpus: &HostCpus,
) -> Result<BTreeSet<u32>, Failure> {
    let resolved = list.resolve(cpus);
    if resolved.is_empty() {
        let count = cpus.nodes.len();
        return Err(Failure::Setting {
            key,
            message: format!("\"{list}\" leaves none of this machine's {count} CPUs to run on"),
            code: 3,
        });
    }
    Ok(resolved)
}

/// Everything between the domain's making and its first instruction.
fn announce(
    host: &mut dyn Toolstack,
    config: &DomainConfig,
    uuid: Uuid,
    built: &Built,
    pinnings: &[Pinning],
    paused: bool,
) -> Result<(), Failure> {
    let domid = built.domid;
    let name = &config.name;
    let xen = host.xen()?;
    for (vcpu, hard, soft) in pinnings {
        xen.set_affinity(domid, *vcpu, hard.as_ref(), soft.as_ref())
            .context(|| format!("pin vCPU {vcpu} of {name}"))?;
    }
    let share = Share {
        weight: config.cpu_weight,
        cap: config.cap,
    };
    // A new domain has the default share: only another one needs a hypervisor that can set it.
    if share != Share::default() {
        xen.set_share(domid, share)
            .context(|| format!("set weight and cap of {name}"))?;
    }

    let disks = disks::check_all(&config.disks)?;
    let vifs = vifs::check_all(&config.vifs)?;
    let mut changes = tree::creation(config, uuid, built, host.unix_time());
    changes.extend(disks.iter().flat_map(|disk| disk.creation(domid)));
    changes.extend(vifs.iter().flat_map(|vif| vif.creation(domid, uuid)));
    host.store()?
        .apply(&changes)
        .context(|| format!("write xenstore's nodes of {name}"))?;
    host.store()?
        .introduce(domid, built.store_gfn, built.store_port)
        .context(|| format!("introduce {name} to xenstored"))?;
    // A guest that finds no back end there may go on without its disks.
    for disk in &disks {
        disk.wait(host, domid)?;
    }
    for vif in &vifs {
        vif.wait(host, domid)?;
    }
    if !paused {
        host.xen()?
            .unpause(domid)
            .context(|| format!("start {name}"))?;
    }
    Ok(())
}

/// Takes everything back; each step is tried though another failed.
pub fn undo(host: &mut dyn Toolstack, domid: u16, uuid: Uuid, failure: Failure) -> Failure {
    let mut left = Vec::new();
    let destroyed = host.xen().and_then(|xen| {
        xen.destroy(domid)
            .context(|| format!("destroy domain {domid}"))
    });
    left.extend(destroyed.err().map(|error| error.to_string()));
    match host.store() {
        Ok(store) => {
            // xenstored may never have heard of the domain, which is no failure here.
            let _ = store.release(domid);
            let removed = store
                .apply(&tree::removal(domid, Some(&tree::vm_path(uuid))))
                .context(|| format!("remove xenstore's nodes of domain {domid}"));
            left.extend(removed.err().map(|error| error.to_string()));
        }
        Err(error) => left.push(error.to_string()),
    }
    if left.is_empty() {
        return failure;
    }
    Failure::NotUndone {
        failure: Box::new(failure),
        undo: left.join("; "),
    }
}
