//! `ox create`: a domain from a configuration.

use std::io::Write;
use std::path::Path;

use oxen_config::DomainConfig;
use uuid::Uuid;

use super::config;
use crate::cli::Create;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::make::{make, undo};
use crate::records::{Held, Phase, Record};
use crate::{disks, ending, names, output, records, vifs};

/// Does `ox create`.
pub fn run(
    arguments: &Create,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let parsed = config::load(&arguments.file, &arguments.settings)?;
    let (config, places) = (parsed.config, parsed.places);
    let placed = |failure: Failure| failure.at(&places);
    check(&config).map_err(placed)?;
    if arguments.dry_run {
        return output::json(out, &config);
    }
    warn(&config);
    if !arguments.unsupervised && !host.is_supervised() {
        log::warn!(
            "no supervisor runs (`ox supervise`): what on_poweroff and the like say happens when one does"
        );
    }
    let name = config.name.clone();
    let (domid, uuid) = create(arguments, config, host).map_err(placed)?;
    log::info!("created {name} as domain {domid}");
    if arguments.console {
        super::lifecycle::attach(domid, host)?;
    }
    if arguments.foreground {
        super::wait::until_gone(&name, uuid, host)?;
    }
    Ok(())
}

/// Makes the domain, with a record that says what to take back if this program is killed meanwhile.
fn create(
    arguments: &Create,
    mut config: DomainConfig,
    host: &mut dyn Toolstack,
) -> Result<(u16, Uuid), Failure> {
    locate(&mut config)?;
    let held = names::hold(host, &config.name)?;
    free(&held, host)?;
    names::check_free(host, &config.name, None)?;
    let uuid = unused_uuid(host, &config)?;
    let mut record = Record {
        uuid,
        config,
        phase: Phase::Making,
        restarts: 0,
        in_vain: 0,
    };
    let remember = |record: &Record| {
        held.write(record)
            .context(|| format!("write the record of {}", record.name()))
    };
    remember(&record)?;
    let made = make(host, &record.config, uuid, arguments.paused);
    let forget = |failure| {
        // A record that stays is dealt with by the supervisor, or by the next who wants the name: so it shall where something
        // else is left.
        if !matches!(failure, Failure::NotUndone { .. }) {
            let _ = held.remove();
        }
        failure
    };
    let domid = made.map_err(forget)?;
    record.phase = if arguments.unsupervised {
        Phase::Kept { domid }
    } else {
        let since = host.uptime().unwrap_or(0);
        Phase::Running { domid, since }
    };
    if let Err(failure) = remember(&record) {
        return Err(forget(undo(host, domid, uuid, failure)));
    }
    Ok((domid, uuid))
}

/// Makes all paths whole: the domain's next life begins in another directory.
fn locate(config: &mut DomainConfig) -> Result<(), Failure> {
    for path in std::iter::once(&mut config.kernel).chain(&mut config.ramdisk) {
        *path = std::path::absolute(&*path)
            .map_err(|error| Failure::ConfigUse(format!("{}: {error}", path.display())))?;
    }
    config.disks.iter_mut().try_for_each(disks::locate)
}

/// Makes way where a killed tool left a record, or nobody has looked after its domain's end. Fails if the domain is there.
fn free(held: &Held, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let record = held.read().context(|| "read a record".to_owned())?;
    let Some(record) = record else {
        return Ok(());
    };
    let state = ending::find(host, record.uuid)?;
    match (&record.phase, state) {
        (Phase::Running { domid, .. } | Phase::Kept { domid }, Some(state)) if !state.dying => {
            Err(Failure::NameTaken {
                name: record.name().to_owned(),
                domid: *domid,
            })
        }
        (Phase::Restarting { .. } | Phase::Renaming { .. }, _) => {
            Err(Failure::NameWaits(record.name().to_owned()))
        }
        _ => {
            log::info!("removing what an earlier {} left", record.name());
            ending::end(host, record.phase.domid(), record.uuid)?;
            held.remove()
                .context(|| format!("remove the record of {}", record.name()))
        }
    }
}

/// What can be known to be impossible before anything is done.
fn check(config: &DomainConfig) -> Result<(), Failure> {
    let files = [Some(&config.kernel), config.ramdisk.as_ref()];
    for (key, file) in ["kernel", "ramdisk"].into_iter().zip(files) {
        if let Some(file) = file {
            check_file(key, file)?;
        }
    }
    disks::check_all(&config.disks)?;
    vifs::check_all(&config.vifs)?;
    Ok(())
}

/// What is kept for later and has no effect yet.
fn warn(config: &DomainConfig) {
    if config.maxmem_mib > config.memory_mib {
        log::warn!(
            "maxmem: the guest starts with {} MiB and reaches {} MiB only if its kernel can add memory while it runs",
            config.memory_mib,
            config.maxmem_mib
        );
    }
}

fn check_file(key: &'static str, file: &Path) -> Result<(), Failure> {
    let wrong = |error: &str| Failure::Setting {
        key,
        message: format!("cannot read {}: {error}", file.display()),
        code: 3,
    };
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
    let taken = |why| Failure::Setting {
        key: "uuid",
        message: format!("{why}; leave uuid out to get a fresh one"),
        code: 3,
    };
    let domains = host
        .xen()?
        .domains()
        .context(|| "list the domains".to_owned())?;
    if let Some(domain) = domains.iter().find(|domain| domain.uuid == uuid) {
        return Err(taken(format!("{uuid} is that of domain {}", domain.domid)));
    }
    let records = records::all(&host.records()).context(|| "read the records".to_owned())?;
    match records.iter().find(|record| record.uuid == uuid) {
        None => Ok(uuid),
        Some(record) => Err(taken(format!(
            "{uuid} is that of {}, which waits to be started again",
            record.name()
        ))),
    }
}
