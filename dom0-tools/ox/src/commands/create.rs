//! `ox create`: a domain from a configuration, or nothing at all.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use oxen_config::domain::Actions;
use oxen_config::{Affinity, CpuList, DomainConfig, HostCpus};
use uuid::Uuid;

use super::config;
use crate::cli::Create;
use crate::failure::{Context, Failure};
use crate::host::{Built, Share, Toolstack};
use crate::{names, output, tree};

/// Affinity of one vCPU.
type Pinning = (u32, Option<BTreeSet<u32>>, Option<BTreeSet<u32>>);

/// Does `ox create`.
pub fn run(
    arguments: &Create,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let config = config::load(&arguments.file, &arguments.settings)?;
    check(&config)?;
    if arguments.dry_run {
        return output::json(out, &config);
    }
    warn(&config);
    names::check_free(host, &config.name, None)?;
    let uuid = unused_uuid(host, &config)?;
    let pinnings = pinnings(host, &config)?;
    log::debug!("building {} as {uuid}", config.name);
    let built = host.xen()?.build(&config, uuid)?;
    let domid = built.domid;
    if let Err(failure) = announce(host, &config, uuid, &built, &pinnings, arguments.paused) {
        return Err(undo(host, domid, uuid, failure));
    }
    log::info!("created {} as domain {domid}", config.name);
    if arguments.console {
        super::lifecycle::attach(domid, host)?;
    }
    Ok(())
}

/// What can be known to be impossible before anything is done.
fn check(config: &DomainConfig) -> Result<(), Failure> {
    let files = [Some(&config.kernel), config.ramdisk.as_ref()];
    for (key, file) in ["kernel", "ramdisk"].into_iter().zip(files) {
        if let Some(file) = file {
            check_file(key, file)?;
        }
    }
    if !config.disks.is_empty() {
        return Err(Failure::NotImplemented(
            "disks: there is no block back-end yet; remove disk=, or put what the guest needs into its ramdisk".to_owned(),
        ));
    }
    if !config.vifs.is_empty() {
        return Err(Failure::NotImplemented(
            "network interfaces: there is no network back-end yet; remove vif=".to_owned(),
        ));
    }
    Ok(())
}

/// What is kept for later and has no effect yet.
fn warn(config: &DomainConfig) {
    if config.actions != Actions::default() {
        log::warn!(
            "on_poweroff and the like are written to xenstore, but nothing acts on them yet: a domain that stops stays until `ox destroy`"
        );
    }
    if config.maxmem_mib > config.memory_mib {
        log::warn!(
            "maxmem: the guest starts with {} MiB and reaches {} MiB only if its kernel can add memory while it runs",
            config.memory_mib,
            config.maxmem_mib
        );
    }
}

fn check_file(key: &str, file: &Path) -> Result<(), Failure> {
    let wrong =
        |error: &str| Failure::ConfigUse(format!("{key}: cannot read {}: {error}", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| wrong(&error.to_string()))?;
    let metadata = opened
        .metadata()
        .map_err(|error| wrong(&error.to_string()))?;
    if !metadata.is_file() {
        return Err(wrong("not a file"));
    }
    Ok(())
}

fn unused_uuid(host: &mut dyn Toolstack, config: &DomainConfig) -> Result<Uuid, Failure> {
    let Some(uuid) = config.uuid else {
        return Ok(Uuid::new_v4());
    };
    let domains = host
        .xen()?
        .domains()
        .context(|| "list the domains".to_owned())?;
    match domains.iter().find(|domain| domain.uuid == uuid) {
        None => Ok(uuid),
        Some(domain) => Err(Failure::ConfigUse(format!(
            "uuid: {uuid} is that of domain {}; leave uuid out to get a fresh one",
            domain.domid
        ))),
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
    let resolve = |key: &str, list: Option<&CpuList>| {
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

fn resolve_list(key: &str, list: &CpuList, cpus: &HostCpus) -> Result<BTreeSet<u32>, Failure> {
    let resolved = list.resolve(cpus);
    if resolved.is_empty() {
        let count = cpus.nodes.len();
        return Err(Failure::ConfigUse(format!(
            "{key}: \"{list}\" leaves none of this machine's {count} CPUs to run on"
        )));
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

    let changes = tree::creation(config, uuid, built, host.unix_time());
    let store = host.store()?;
    store
        .apply(&changes)
        .context(|| format!("write xenstore's nodes of {name}"))?;
    // Two creates that run at once both found the name free. Each wrote it before it looks again, so that one sees the other;
    // the lower number keeps the name.
    let rivals = names::with_name(store, name)?;
    if let Some(rival) = rivals.into_iter().find(|rival| *rival < domid) {
        let there = host.xen()?.domain(rival);
        if there
            .context(|| format!("look at domain {rival}"))?
            .is_some()
        {
            return Err(Failure::NameTaken {
                name: name.clone(),
                domid: rival,
            });
        }
    }
    host.store()?
        .introduce(domid, built.store_gfn, built.store_port)
        .context(|| format!("introduce {name} to xenstored"))?;
    if !paused {
        host.xen()?
            .unpause(domid)
            .context(|| format!("start {name}"))?;
    }
    Ok(())
}

/// Takes everything back; each step is tried though another failed.
fn undo(host: &mut dyn Toolstack, domid: u16, uuid: Uuid, failure: Failure) -> Failure {
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
