//! `ox info` and `ox dmesg`.

use std::collections::BTreeMap;
use std::io::Write;

use oxen_abi::grant::{DEFAULT_MAX_FRAMES, DEFAULT_MAX_MAPTRACK_FRAMES};
use oxen_config::domain::{MAX_EVENT_CHANNELS, MAX_VCPUS};

use crate::cli::Json;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::output;

/// `ox info`, with the words that `xl info` uses.
pub fn run(json: Json, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let xen = host.xen()?;
    let version = xen
        .version()
        .context(|| "ask for the hypervisor's version".to_owned())?;
    let machine = xen.machine().context(|| "look at the machine".to_owned())?;
    let system = rustix::system::uname();
    let linux = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let [compiler, built_by, built_domain, built_on] = version.compile;
    let facts: Vec<(&str, String)> = vec![
        ("host", linux(system.nodename())),
        ("release", linux(system.release())),
        ("version", linux(system.version())),
        ("machine", linux(system.machine())),
        ("nr_cpus", machine.cpus.to_string()),
        ("max_cpu_id", machine.max_cpu_id.to_string()),
        ("nr_nodes", machine.nodes.to_string()),
        ("cores_per_socket", machine.cores_per_socket.to_string()),
        ("threads_per_core", machine.threads_per_core.to_string()),
        (
            "cpu_mhz",
            format!("{}.{:03}", machine.cpu_khz / 1000, machine.cpu_khz % 1000),
        ),
        ("virt_caps", machine.virt_caps),
        ("total_memory", (machine.total_kib / 1024).to_string()),
        ("free_memory", (machine.free_kib / 1024).to_string()),
        ("free_pages", (machine.free_kib / 4).to_string()),
        ("scrub_pages", (machine.scrub_kib / 4).to_string()),
        ("outstanding_claims", (machine.claimed_kib / 4).to_string()),
        ("max_domain_vcpus", MAX_VCPUS.to_string()),
        ("max_domain_event_channels", MAX_EVENT_CHANNELS.to_string()),
        ("max_domain_grant_frames", DEFAULT_MAX_FRAMES.to_string()),
        (
            "max_domain_maptrack_frames",
            DEFAULT_MAX_MAPTRACK_FRAMES.to_string(),
        ),
        ("xen_major", version.major.to_string()),
        ("xen_minor", version.minor.to_string()),
        ("xen_extra", version.extra.clone()),
        (
            "xen_version",
            format!("{}.{}{}", version.major, version.minor, version.extra),
        ),
        ("xen_caps", version.capabilities),
        ("xen_scheduler", "credit2".to_owned()),
        ("xen_pagesize", "4096".to_owned()),
        ("xen_changeset", version.changeset),
        ("xen_commandline", version.command_line),
        ("cc_compiler", compiler),
        ("cc_compile_by", built_by),
        ("cc_compile_domain", built_domain),
        ("cc_compile_date", built_on),
    ];
    if json.json {
        let object: BTreeMap<_, _> = facts.into_iter().collect();
        return output::json(out, &object);
    }
    for (key, value) in facts {
        writeln!(out, "{}", format!("{key:<22} : {value}").trim_end())?;
    }
    Ok(())
}

/// `ox debug-keys`: what a key prints goes to the hypervisor's log.
pub fn debug_keys(keys: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    if keys.is_empty() || !keys.bytes().all(|key| key.is_ascii_graphic()) {
        return Err(Failure::Usage(format!(
            "{keys:?} are no debug keys; `ox debug-keys h` and `ox dmesg` list those there are"
        )));
    }
    host.xen()?
        .debug_keys(keys)
        .context(|| format!("press the debug keys {keys:?}"))
}

/// `ox dmesg`.
pub fn dmesg(clear: bool, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let xen = host.xen()?;
    let log = xen
        .log()
        .context(|| "read the hypervisor's log".to_owned())?;
    // Guests can have written to the log: what would steer the terminal is shown, not obeyed.
    for byte in &log {
        match byte {
            b'\n' | b'\t' | b' '..=b'~' => out.write_all(&[*byte])?,
            b'\r' => {}
            other => write!(out, "\\x{other:02x}")?,
        }
    }
    if log.last().is_some_and(|last| *last != b'\n') {
        writeln!(out)?;
    }
    if clear {
        // What has been read is on its way before it is gone from the hypervisor.
        out.flush()?;
        xen.clear_log()
            .context(|| "clear the hypervisor's log".to_owned())?;
    }
    Ok(())
}
