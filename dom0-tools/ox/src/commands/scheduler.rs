//! `ox sched-credit2`.

use std::io::Write;

use serde::Serialize;

use crate::cli::Share as Arguments;
use crate::failure::{Context, Failure};
use crate::host::{Share, Toolstack};
use crate::{names, output};

/// A domain's share in JSON.
#[derive(Serialize)]
struct Row {
    name: Option<String>,
    domid: u16,
    #[serde(flatten)]
    share: Share,
}

/// The scheduler's own parameter in JSON.
#[derive(Serialize)]
struct Own {
    ratelimit_us: u32,
}

/// Shows or sets weight and cap, or the scheduler's own parameter.
pub fn run(
    arguments: &Arguments,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if arguments.scheduler {
        own(arguments, host, out)
    } else {
        domains(arguments, host, out)
    }
}

fn own(
    arguments: &Arguments,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let xen = host.xen()?;
    if let Some(micros) = arguments.ratelimit {
        return (xen.set_rate_limit(micros))
            .context(|| "set the scheduler's rate limit".to_owned());
    }
    let micros = (xen.rate_limit()).context(|| "read the scheduler's rate limit".to_owned())?;
    let shown = Own {
        ratelimit_us: micros,
    };
    if arguments.json.json {
        return output::json(out, &shown);
    }
    output::table(out, &["Ratelimit(us)"], &[0], [vec![micros.to_string()]])
}

fn domains(
    arguments: &Arguments,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let words: Vec<_> = arguments.domain.iter().cloned().collect();
    let domains = names::resolve_all(host, &words)?;
    let xen = host.xen()?;
    let mut rows = Vec::new();
    for (state, name) in domains {
        let domid = state.domid;
        let mut share = xen
            .share(domid)
            .context(|| format!("read weight and cap of domain {domid}"))?;
        if arguments.weight.is_some() || arguments.cap.is_some() {
            share.weight = arguments.weight.unwrap_or(share.weight);
            share.cap = arguments.cap.unwrap_or(share.cap);
            return xen
                .set_share(domid, share)
                .context(|| format!("set weight and cap of domain {domid}"));
        }
        rows.push(Row { name, domid, share });
    }
    if arguments.json.json {
        return output::json(out, &rows);
    }
    let table = rows.into_iter().map(|row| {
        vec![
            row.name.unwrap_or_else(|| "(null)".to_owned()),
            row.domid.to_string(),
            row.share.weight.to_string(),
            row.share.cap.to_string(),
        ]
    });
    output::table(out, &["Name", "ID", "Weight", "Cap"], &[1, 2, 3], table)
}
