//! `ox list` and `ox uptime`.

use std::io::Write;

use serde::Serialize;

use crate::cli::{Json, List};
use crate::failure::{Context, Failure};
use crate::host::{DomainState, Share, Toolstack};
use crate::{names, output};

/// A domain in JSON.
#[derive(Serialize)]
struct Row {
    name: Option<String>,
    #[serde(flatten)]
    state: DomainState,
    #[serde(flatten)]
    share: Option<Share>,
}

/// `ox list`.
pub fn run(arguments: &List, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (state, name) in names::resolve_all(host, &arguments.domains)? {
        let more = arguments.long || arguments.json.json;
        // A domain may go while it is being listed.
        let share = if more {
            host.xen()?.share(state.domid).ok()
        } else {
            None
        };
        rows.push(Row { name, state, share });
    }
    if arguments.json.json {
        return output::json(out, &rows);
    }
    let mut header = vec!["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"];
    let mut right = vec![1, 2, 3, 4, 5];
    if arguments.long {
        header.extend(["MaxMem", "MaxVCPUs", "Weight", "Cap", "Stopped", "UUID"]);
        right.extend([6, 7, 8, 9]);
    }
    let table = rows.into_iter().map(|row| {
        let state = row.state;
        let mut cells = vec![
            row.name.unwrap_or_else(|| "(null)".to_owned()),
            state.domid.to_string(),
            (state.memory_kib / 1024).to_string(),
            state.vcpus_online.to_string(),
            state.flags(),
            output::seconds(state.cpu_time_ns),
        ];
        if arguments.long {
            let share = |value: fn(Share) -> u16| {
                row.share
                    .map_or_else(|| "-".to_owned(), |share| value(share).to_string())
            };
            cells.extend([
                limit_mib(state.max_memory_kib),
                state.vcpus.to_string(),
                share(|share| share.weight),
                share(|share| share.cap),
                state.shutdown.unwrap_or("-").to_owned(),
                state.uuid.to_string(),
            ]);
        }
        cells
    });
    output::table(out, &header, &right, table)
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
