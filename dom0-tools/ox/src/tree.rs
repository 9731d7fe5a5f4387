//! What a domain has in xenstore: the nodes that tools write before it starts, and remove after its end.
//!
//! The keys are those that stock guests and Xen's own tools read; see xen-abi-7, section 7.3.

use oxen_config::DomainConfig;
use uuid::Uuid;

use crate::host::{Access, Built, Change};
use crate::names;

/// Bytes of output that a console daemon keeps for a guest that nobody watches.
const CONSOLE_LIMIT: u32 = 1 << 20;

/// Nodes that the guest itself writes.
const GUEST_OWNED: &[&str] = &[
    "device/suspend/event-channel",
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
];

/// The nodes of a new domain, in the order in which they are made: a node inherits the permissions of the one above it.
pub fn creation(config: &DomainConfig, uuid: Uuid, built: &Built, unix_time: u64) -> Vec<Change> {
    let domid = built.domid;
    let home = names::path(domid);
    let vm = vm_path(uuid);
    let mut changes = Vec::new();
    // What an earlier domain of this number left must not show through.
    changes.extend(removal(domid, None));
    let mut write = |path: String, value: String, access| {
        changes.push(Change::Write {
            path,
            value,
            access: Some(access),
        });
    };
    let reads = Access::GuestReads(domid);
    write(vm.clone(), String::new(), reads);
    write(format!("{vm}/uuid"), uuid.to_string(), reads);
    write(format!("{vm}/name"), config.name.clone(), reads);
    write(format!("{vm}/start_time"), format!("{unix_time}.00"), reads);
    let actions = [
        ("on_poweroff", config.actions.on_poweroff),
        ("on_reboot", config.actions.on_reboot),
        ("on_crash", config.actions.on_crash),
        ("on_watchdog", config.actions.on_watchdog),
        ("on_soft_reset", config.actions.on_soft_reset),
    ];
    for (key, action) in actions {
        write(
            format!("{vm}/{key}"),
            action.name().to_owned(),
            Access::HostOnly,
        );
    }

    write(home.clone(), String::new(), reads);
    let memory_kib = config.memory_mib * 1024;
    let mut guest = |key: &str, value: String| write(format!("{home}/{key}"), value, reads);
    guest("name", config.name.clone());
    guest("domid", domid.to_string());
    guest("vm", vm);
    // Linux takes the difference to what its memory map has for memory that it never got, and lowers its target by it: this
    // must be what the domain was built with, not what it may grow to.
    guest("memory/static-max", memory_kib.to_string());
    guest("memory/target", memory_kib.to_string());
    guest("memory/videoram", "0".to_owned());
    for vcpu in 0..config.maxvcpus {
        guest(
            &format!("cpu/{vcpu}/availability"),
            availability(vcpu < config.vcpus).to_owned(),
        );
    }
    guest("device", String::new());
    guest("control", String::new());
    guest(
        "control/platform-feature-multiprocessor-suspend",
        "1".to_owned(),
    );
    guest("control/platform-feature-xs_reset_watches", "1".to_owned());
    guest("store/port", built.store_port.to_string());
    guest("store/ring-ref", built.store_gfn.to_string());
    guest("console/ring-ref", built.console_gfn.to_string());
    guest("console/port", built.console_port.to_string());
    guest("console/limit", CONSOLE_LIMIT.to_string());
    guest("console/type", "xenconsoled".to_owned());
    guest("console/output", "pty".to_owned());
    guest("console/tty", String::new());
    guest("console/backend-id", "0".to_owned());
    for key in GUEST_OWNED {
        write(
            format!("{home}/{key}"),
            String::new(),
            Access::GuestOwns(domid),
        );
    }
    changes
}

/// Where a domain's back ends of a kind are.
pub fn back_ends(kind: &str, domid: u16) -> String {
    format!("/local/domain/0/backend/{kind}/{domid}")
}

/// Where Linux's xenbus says what is wrong with a back end, or with all of a kind's for a domain.
pub fn kernel_error(back: &str) -> String {
    let own = names::path(0);
    let below = back.strip_prefix(&own).unwrap_or(back);
    format!("{own}/error{below}")
}

/// Kinds of back ends in dom0 that a domain's devices may have.
const BACK_ENDS: &[&str] = &["oxblk", "oxvif", "vbd", "vif"];

/// Removes all that a domain has. Its `/vm` node goes only when it is known: another domain of the same UUID may own it.
pub fn removal(domid: u16, vm: Option<&str>) -> Vec<Change> {
    let mut changes = vec![remove(names::path(domid))];
    for kind in BACK_ENDS {
        let back_ends = back_ends(kind, domid);
        changes.push(remove(kernel_error(&back_ends)));
        changes.push(remove(back_ends));
    }
    changes.extend(vm.map(|vm| remove(vm.to_owned())));
    changes
}

/// Where things that outlive a reboot of the guest are.
pub fn vm_path(uuid: Uuid) -> String {
    format!("/vm/{uuid}")
}

/// The word for a vCPU's state that guests read.
pub fn availability(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

/// Writes a node with its permissions.
pub fn write(path: String, value: String, access: Access) -> Change {
    Change::Write {
        path,
        value,
        access: Some(access),
    }
}

/// Writes a node and keeps its permissions.
pub fn rewrite(path: String, value: String) -> Change {
    Change::Write {
        path,
        value,
        access: None,
    }
}

/// Removes a node and all below it.
pub fn remove(path: String) -> Change {
    Change::Remove { path }
}
