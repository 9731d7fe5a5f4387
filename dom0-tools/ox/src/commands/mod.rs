//! The verbs.

mod block;
mod config;
mod create;
mod destroy;
mod devices;
mod info;
mod lifecycle;
mod list;
mod memory;
mod meta;
mod network;
pub mod rename;
mod scheduler;
mod stop;
mod store;
mod vcpu;
pub mod wait;

use std::io::Write;
use std::path::Path;

use crate::cli::Command;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::{dump, names, supervise, top};

/// Does what was typed.
pub fn run(command: Command, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create::run(&arguments, host, out),
        Command::List(arguments) => list::run(&arguments, host, out),
        Command::Info(json) => info::run(json, host, out),
        Command::Console(domain) => lifecycle::console(&domain.domain, host),
        Command::Destroy(domain) => destroy::run(&domain.domain, host),
        Command::Shutdown(arguments) => stop::run(&arguments, stop::Request::PowerOff, host),
        Command::Reboot(arguments) => stop::run(&arguments, stop::Request::Reboot, host),
        Command::Pause(domain) => lifecycle::pause(&domain.domain, host),
        Command::Unpause(domain) => lifecycle::unpause(&domain.domain, host),
        Command::Rename { domain, new_name } => rename::run(&domain, &new_name, host),
        Command::Domid { domain } => domid(&domain, host, out),
        Command::Domname { domain } => domname(&domain, host, out),
        Command::VcpuList { domains, json } => vcpu::list(&domains, json, host, out),
        Command::VcpuPin {
            domain,
            vcpu,
            hard,
            soft,
        } => vcpu::pin(&domain, &vcpu, &hard, &soft, host),
        Command::VcpuSet { domain, vcpus } => vcpu::set(&domain, vcpus, host),
        Command::SchedCredit2(share) => scheduler::run(&share, host, out),
        Command::MemSet(memory) => memory::set(&memory, host),
        Command::MemMax(memory) => memory::max(&memory, host),
        Command::BlockAttach { domain, disk } => block::attach(&domain, &disk, host),
        Command::BlockDetach(arguments) => block::detach(&arguments, host),
        Command::BlockList(arguments) => devices::list::<block::DiskRow>(&arguments, host, out),
        Command::NetworkAttach { domain, vif } => network::attach(&domain, &vif, host),
        Command::NetworkDetach { domain, device } => network::detach(&domain, &device, host),
        Command::NetworkList(arguments) => devices::list::<network::VifRow>(&arguments, host, out),
        Command::Uptime { domains, json } => list::uptime(&domains, json, host, out),
        Command::Top(arguments) => top::run(&arguments, host, out),
        Command::Dmesg { clear } => info::dmesg(clear, host, out),
        Command::DebugKeys { keys } => info::debug_keys(&keys, host),
        Command::Trigger {
            domain,
            event,
            vcpu,
        } => lifecycle::trigger(&domain, event, vcpu, host),
        Command::Sysrq { domain, letter } => lifecycle::sysrq(&domain, letter, host),
        Command::DumpCore { domain, file } => dump_core(&domain, file.as_deref(), host),
        Command::Config(verb) => config::run(verb, host, out),
        Command::Store(verb) => store::run(&verb, host, out),
        Command::Supervise(arguments) => supervise::run(&arguments),
        Command::Completion { shell } => meta::completion(shell, out),
        Command::Man { verb } => meta::man(verb.as_deref(), out),
    }
}

fn domid(name: &str, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let found = names::resolve(host, name)?;
    writeln!(out, "{}", found.domid)?;
    Ok(())
}

fn domname(number: &str, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    if names::number(number).is_none() {
        return Err(Failure::Usage(format!(
            "{number:?} is not the number of a domain; `ox domid` turns names into numbers"
        )));
    }
    let domid = names::resolve(host, number)?.domid;
    let name = names::read_name(host.store()?, domid)?;
    let Some(name) = name else {
        return Err(Failure::Refused {
            action: format!("name domain {domid}"),
            error: "xenstore has no name for it; it is being created or was left unfinished"
                .to_owned(),
        });
    };
    writeln!(out, "{name}")?;
    Ok(())
}

fn dump_core(word: &str, file: Option<&Path>, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let domid = names::resolve(host, word)?.domid;
    not_control_domain(domid, "dumped")?;
    let name = names::read_name(host.store()?, domid)?;
    let name = name.unwrap_or_else(|| domid.to_string());
    let path = dump::dump(host, domid, &name, file)?;
    log::info!("the memory of {name} is in {}", path.display());
    Ok(())
}

/// Refuses what would stop or starve the domain that `ox` itself runs in.
fn not_control_domain(domid: u16, verb: &str) -> Result<(), Failure> {
    if domid == 0 {
        return Err(Failure::Usage(format!(
            "domain 0 runs this machine and cannot be {verb} from within"
        )));
    }
    Ok(())
}

/// Writes nodes below a domain's path in xenstore and keeps their permissions.
fn write_nodes(
    host: &mut dyn Toolstack,
    domid: u16,
    nodes: &[(String, String)],
    action: &str,
) -> Result<(), Failure> {
    let changes: Vec<_> = nodes
        .iter()
        .map(|(key, value)| crate::host::Change::Write {
            path: format!("{}/{key}", names::path(domid)),
            value: value.clone(),
            access: None,
        })
        .collect();
    host.store()?
        .apply(&changes)
        .context(|| format!("{action} domain {domid}"))
}
