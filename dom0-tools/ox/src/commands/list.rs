//! `ox list` and `ox uptime`.

use std::io::Write;

use oxen_abi::grant::DEFAULT_MAX_MAPTRACK_FRAMES;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::{Json, List};
use crate::failure::{Context, Failure};
use crate::host::{DomainState, Limits, Share, Toolstack};
use crate::records::{self, Phase, Record};
use crate::{names, output};

/// A domain in JSON.
#[derive(Serialize)]
struct Row {
    name: Option<String>,
    #[serde(flatten)]
    state: Option<DomainState>,
    #[serde(flatten)]
    share: Option<Share>,
    #[serde(flatten)]
    limits: Option<Limits>,
    #[serde(flatten)]
    asked: Option<Asked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<Waits>,
}

/// Limits that the domain was made with; the hypervisor does not tell them.
#[derive(Serialize)]
struct Asked {
    max_event_channels: u32,
    max_maptrack_frames: u32,
}

/// A domain that is to be started again, and is not there meanwhile.
#[derive(Serialize)]
struct Waits {
    uuid: Uuid,
    /// Until the supervisor starts it.
    seconds: u64,
    restarts: u32,
    memory_kib: u64,
    vcpus: u32,
}

/// `ox list`.
pub fn run(arguments: &List, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    // Domains are worth showing though what they were made from is out of reach.
    let records = records::all(&host.records()).unwrap_or_else(|error| {
        log::warn!("limits and waiting domains are not shown: {error}");
        Vec::new()
    });
    let rows = rows(arguments, &records, host)?;
    if arguments.json.json {
        return output::json(out, &rows);
    }
    let mut header = vec!["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"];
    let mut right = vec![1, 2, 3, 4, 5];
    if arguments.long {
        header.extend([
            "MaxMem", "MaxVCPUs", "Weight", "Cap", "Ports", "Grants", "Maptrack", "TableKiB",
            "Stopped", "UUID",
        ]);
        right.extend(6..14);
    }
    let cells = rows.iter().map(|row| cells(row, arguments.long));
    output::table(out, &header, &right, cells)
}

/// The domains that there are, then those that wait to be started again.
fn rows(
    arguments: &List,
    records: &[Record],
    host: &mut dyn Toolstack,
) -> Result<Vec<Row>, Failure> {
    let all = names::all(host)?;
    let waiting: Vec<_> = records
        .iter()
        .filter_map(|record| Some((record, waits(record, &all, host.uptime().unwrap_or(0))?)))
        .collect();
    let words = &arguments.domains;
    let (of_waiting, others): (Vec<_>, Vec<_>) = words
        .iter()
        .cloned()
        .partition(|word| waiting.iter().any(|(record, _)| record.name() == word));
    let there = if words.is_empty() || !others.is_empty() {
        names::resolve_all(host, &others)?
    } else {
        Vec::new()
    };
    let more = arguments.long || arguments.json.json;
    let mut rows = Vec::new();
    for (state, name) in there {
        // A domain may go while it is being listed.
        let (share, limits) = if more {
            let xen = host.xen()?;
            (xen.share(state.domid).ok(), xen.limits(state.domid).ok())
        } else {
            (None, None)
        };
        let record = records.iter().find(|record| record.uuid == state.uuid);
        rows.push(Row {
            name,
            share,
            limits,
            asked: record.filter(|_| more).map(asked),
            state: Some(state),
            waits: None,
        });
    }
    for (record, waits) in waiting {
        if words.is_empty() || of_waiting.iter().any(|word| word == record.name()) {
            rows.push(Row {
                name: Some(record.name().to_owned()),
                state: None,
                share: None,
                limits: None,
                asked: more.then(|| asked(record)),
                waits: Some(waits),
            });
        }
    }
    Ok(rows)
}

fn asked(record: &Record) -> Asked {
    let config = &record.config;
    Asked {
        max_event_channels: config.max_event_channels,
        max_maptrack_frames: config
            .max_maptrack_frames
            .unwrap_or(DEFAULT_MAX_MAPTRACK_FRAMES),
    }
}

/// How a domain waits to be started again, unless it is there.
fn waits(record: &Record, all: &[(DomainState, Option<String>)], now: u64) -> Option<Waits> {
    let (Phase::Restarting { not_before, .. } | Phase::Renaming { not_before, .. }) = record.phase
    else {
        return None;
    };
    if all.iter().any(|(state, _)| state.uuid == record.uuid) {
        return None;
    }
    Some(Waits {
        uuid: record.uuid,
        seconds: not_before.saturating_sub(now),
        restarts: record.restarts,
        memory_kib: record.config.memory_mib * 1024,
        vcpus: record.config.maxvcpus,
    })
}

/// What a table shows for what there is not.
const NONE: &str = "-";

fn cells(row: &Row, long: bool) -> Vec<String> {
    let name = row.name.clone().unwrap_or_else(|| "(null)".to_owned());
    let text = |value: Option<String>| value.unwrap_or_else(|| NONE.to_owned());
    let state = row.state.as_ref();
    let waits = row.waits.as_ref();
    let mut cells = vec![
        name,
        text(state.map(|state| state.domid.to_string())),
        (state.map_or(0, |state| state.memory_kib) / 1024).to_string(),
        state.map_or(0, |state| state.vcpus_online).to_string(),
        text(state.map(DomainState::flags)),
        text(state.map(|state| output::seconds(state.cpu_time_ns))),
    ];
    if long {
        let stopped = match waits {
            Some(waits) => Some(format!("starts again in {} s", waits.seconds)),
            None => state.and_then(|state| state.shutdown).map(str::to_owned),
        };
        let memory = state.map(|state| state.max_memory_kib);
        let memory = memory.or(waits.map(|waits| waits.memory_kib));
        let vcpus = state.map(|state| state.vcpus);
        let uuid = state.map(|state| state.uuid);
        cells.extend([
            text(memory.map(limit_mib)),
            text(
                vcpus
                    .or(waits.map(|waits| waits.vcpus))
                    .map(|vcpus| vcpus.to_string()),
            ),
            text(row.share.map(|share| share.weight.to_string())),
            text(row.share.map(|share| share.cap.to_string())),
            text(
                row.asked
                    .as_ref()
                    .map(|asked| asked.max_event_channels.to_string()),
            ),
            text(
                row.limits
                    .map(|limits| format!("{}/{}", limits.grant_frames, limits.max_grant_frames)),
            ),
            text(
                row.asked
                    .as_ref()
                    .map(|asked| asked.max_maptrack_frames.to_string()),
            ),
            text(row.limits.map(|limits| limits.max_tables_kib.to_string())),
            text(stopped),
            text(
                uuid.or(waits.map(|waits| waits.uuid))
                    .map(|uuid| uuid.to_string()),
            ),
        ]);
    }
    cells
}

// Domain 0 may have no limit, which the hypervisor says with the largest number there is.
fn limit_mib(kib: u64) -> String {
    if kib >= u64::from(u32::MAX) * 4 {
        "none".to_owned()
    } else {
        (kib / 1024).to_string()
    }
}

/// How long a domain has been running.
#[derive(Serialize)]
struct Uptime {
    name: Option<String>,
    domid: u16,
    /// Seconds; nothing if xenstore does not know when it began.
    uptime_seconds: Option<u64>,
}

/// `ox uptime`.
pub fn uptime(
    words: &[String],
    json: Json,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (state, name) in names::resolve_all(host, words)? {
        let domid = state.domid;
        let uptime_seconds = if domid == 0 {
            Some(
                host.uptime()
                    .context(|| "read the uptime of domain 0".to_owned())?,
            )
        } else {
            start_time(domid, host)?.map(|start| host.unix_time().saturating_sub(start))
        };
        rows.push(Uptime {
            name,
            domid,
            uptime_seconds,
        });
    }
    if json.json {
        return output::json(out, &rows);
    }
    let table = rows.into_iter().map(|row| {
        let uptime = row.uptime_seconds.map_or_else(|| "-".to_owned(), readable);
        vec![
            row.name.unwrap_or_else(|| "(null)".to_owned()),
            row.domid.to_string(),
            uptime,
        ]
    });
    output::table(out, &["Name", "ID", "Uptime"], &[1, 2], table)
}

fn start_time(domid: u16, host: &mut dyn Toolstack) -> Result<Option<u64>, Failure> {
    let store = host.store()?;
    let mut read = |path: String| {
        store
            .read(&path)
            .context(|| format!("read {path} in xenstore"))
    };
    let Some(vm) = read(format!("{}/vm", names::path(domid)))? else {
        return Ok(None);
    };
    let start = read(format!("{vm}/start_time"))?;
    Ok(start.and_then(|start| start.split('.').next()?.parse().ok()))
}

fn readable(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        1 => format!("1 day, {time}"),
        days => format!("{days} days, {time}"),
    }
}
