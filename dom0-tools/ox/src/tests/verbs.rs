//! All verbs but `create`.

use super::{fails, ok};
use crate::host::fake::Fake;

fn host() -> Fake {
    let host = Fake::new();
    host.0.borrow_mut().add(3, "demo");
    host
}

#[test]
fn list_prints_what_xl_prints() {
    let host = host();
    assert_eq!(
        ok(&host, &["list"]),
        "Name      ID  Mem  VCPUs   State  Time(s)\n\
         Domain-0   0  256      2  -b----     12.3\n\
         demo       3  256      2  -b----     12.3\n",
    );
    assert!(ok(&host, &["list", "-l", "demo"]).contains("00000000-0000-0000-0000-000000000003"));
    let json: serde_json::Value = serde_json::from_str(&ok(&host, &["list", "--json", "3"]))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(json[0]["name"], "demo");
    assert_eq!(json[0]["weight"], 256);
    assert_eq!(json[0]["memory_kib"], 262_144);
}

#[test]
fn list_works_without_xenstored() {
    let host = host();
    host.0.borrow_mut().fails = Some("connect");
    assert!(ok(&host, &["list"]).contains("(null)"));
    assert_eq!(fails(&host, &["domid", "demo"]).0, 7);
}

#[test]
fn nobody_is_an_error_of_its_own() {
    let host = host();
    for verb in [
        "destroy",
        "pause",
        "console",
        "shutdown",
        "domid",
        "list",
        "vcpu-list",
    ] {
        for nobody in ["nobody", "77", "99999999"] {
            let (code, message) = fails(&host, &[verb, nobody]);
            assert_eq!(code, 4, "{verb} {nobody}: {message}");
        }
    }
    assert!(host.0.borrow().calls.is_empty());
}

#[test]
fn names_and_numbers_turn_into_each_other() {
    let host = host();
    assert_eq!(ok(&host, &["domid", "demo"]), "3\n");
    assert_eq!(ok(&host, &["domname", "3"]), "demo\n");
    assert_eq!(fails(&host, &["domname", "demo"]).0, 2);
}

#[test]
fn destroy_removes_the_domain_and_its_nodes() {
    let host = host();
    {
        let mut world = host.0.borrow_mut();
        let vm = "/vm/00000000-0000-0000-0000-000000000003";
        world.put("/local/domain/3/vm", vm);
        world.put(&format!("{vm}/name"), "demo");
        world.put("/vm/abcd/name", "other");
        world.put("/local/domain/31/name", "neighbour");
    }
    ok(&host, &["destroy", "demo"]);
    let world = host.0.borrow();
    assert_eq!(world.domains.len(), 1);
    let left: Vec<_> = world.nodes.keys().map(String::as_str).collect();
    assert_eq!(
        left,
        [
            "/local/domain/0/name",
            "/local/domain/31/name",
            "/vm/abcd/name"
        ]
    );
}

#[test]
fn destroy_removes_what_a_killed_tool_left() {
    let host = Fake::new();
    host.0.borrow_mut().put("/local/domain/9/name", "ghost");
    ok(&host, &["destroy", "ghost"]);
    assert_eq!(host.0.borrow().nodes.len(), 1);
    host.0.borrow_mut().put("/local/domain/9/name", "ghost");
    ok(&host, &["destroy", "9"]);
    assert_eq!(host.0.borrow().nodes.len(), 1);
}

#[test]
fn domain_0_is_safe() {
    let host = host();
    for verb in ["destroy", "pause", "shutdown", "reboot"] {
        assert_eq!(fails(&host, &[verb, "0"]).0, 2, "{verb}");
        assert_eq!(fails(&host, &[verb, "Domain-0"]).0, 2, "{verb}");
    }
}

#[test]
fn pause_and_unpause() {
    let host = host();
    ok(&host, &["pause", "demo"]);
    assert!(host.0.borrow().domains[1].paused);
    ok(&host, &["unpause", "3"]);
    assert_eq!(fails(&host, &["unpause", "3"]).0, 2);
}

#[test]
fn rename_keeps_names_unique() {
    let host = host();
    host.0.borrow_mut().add(4, "more");
    assert_eq!(fails(&host, &["rename", "demo", "more"]).0, 5);
    assert_eq!(fails(&host, &["rename", "demo", "12"]).0, 2);
    ok(&host, &["rename", "demo", "fine"]);
    assert_eq!(ok(&host, &["domid", "fine"]), "3\n");
}

#[test]
fn vcpus_are_pinned_listed_and_counted() {
    let host = host();
    ok(&host, &["vcpu-pin", "demo", "1", "0-1,^0", "all"]);
    ok(&host, &["vcpu-pin", "demo", "all", "-", "2"]);
    let listed = ok(&host, &["vcpu-list", "demo"]);
    assert!(
        listed.contains("all / 2") && listed.contains("1 / 2"),
        "{listed}"
    );
    assert_eq!(fails(&host, &["vcpu-pin", "demo", "2", "0"]).0, 2);
    assert_eq!(fails(&host, &["vcpu-pin", "demo", "0", "9"]).0, 2);
    ok(&host, &["vcpu-set", "demo", "1"]);
    assert_eq!(
        host.0.borrow().nodes["/local/domain/3/cpu/1/availability"].0,
        "offline"
    );
    assert_eq!(fails(&host, &["vcpu-set", "demo", "3"]).0, 2);
}

#[test]
fn memory_targets_stay_below_the_maximum() {
    let host = host();
    ok(&host, &["mem-set", "demo", "128m"]);
    assert_eq!(
        host.0.borrow().nodes["/local/domain/3/memory/target"].0,
        "131072"
    );
    assert_eq!(fails(&host, &["mem-set", "demo", "257m"]).0, 2);
    assert_eq!(fails(&host, &["mem-max", "demo", "1m"]).0, 2);
    ok(&host, &["mem-max", "demo", "1g"]);
    assert_eq!(host.0.borrow().domains[1].max_memory_kib, (1 << 20) + 1024);
}

#[test]
fn weights_triggers_and_system_requests() {
    let host = host();
    ok(&host, &["sched-credit2", "-d", "demo", "-w", "512"]);
    assert!(ok(&host, &["sched-credit2"]).contains("demo       3     512    0"));
    ok(&host, &["sched-credit2", "-s", "-r", "1000"]);
    assert!(ok(&host, &["sched-credit2", "-s"]).ends_with("1000\n"));
    for wrong in [
        &["-s", "-r", "99"][..],
        &["-r", "1000"],
        &["-s", "-d", "demo"],
    ] {
        let words = [&["sched-credit2"], wrong].concat();
        assert_eq!(fails(&host, &words).0, 2, "{wrong:?}");
    }
    ok(&host, &["trigger", "demo", "nmi", "1"]);
    assert_eq!(
        host.0.borrow().calls.last().map(String::as_str),
        Some("trigger 3 0 1")
    );
    assert_eq!(fails(&host, &["trigger", "demo", "nmi", "2"]).0, 2);
    ok(&host, &["sysrq", "demo", "s"]);
    assert_eq!(
        host.0.borrow().nodes["/local/domain/3/control/sysrq"].0,
        "s"
    );
}

#[test]
fn uptime_knows_dom0_and_guests() {
    let host = host();
    host.0.borrow_mut().put("/local/domain/3/vm", "/vm/abc");
    host.0
        .borrow_mut()
        .put("/vm/abc/start_time", "1700096399.00");
    let printed = ok(&host, &["uptime"]);
    assert!(
        printed.contains("1 day, 1:01:01") && printed.contains("1:00:01"),
        "{printed}"
    );
}

#[test]
fn the_log_of_the_hypervisor_cannot_steer_the_terminal() {
    let (code, message) = fails(&host(), &["dmesg", "-c"]);
    assert_eq!(code, 6, "{message}");
    assert_eq!(ok(&host(), &["dmesg"]), "(XEN) one\n(d1) \\x1b[2J two\n");
}

#[test]
fn top_in_batches() {
    let host = host();
    let printed = ok(&host, &["top", "-b", "-i", "2", "-d", "1"]);
    let lines: Vec<_> = printed
        .lines()
        .filter(|line| line.starts_with("demo"))
        .collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines[1].contains("0.0"), "{printed}");
    assert_eq!(host.0.borrow().slept.as_secs(), 1);
}

#[test]
fn the_store_can_be_looked_at() {
    let host = host();
    host.0.borrow_mut().put("/local/domain/3", "");
    host.0.borrow_mut().put("/local/domain/3/data", "");
    host.0.borrow_mut().put("/local/domain/3/data/x", "\x1b[2J");
    let listed = ok(&host, &["store", "ls", "/local/domain/3"]);
    let home = "/local/domain/3";
    let expected = [
        format!("{home}/data = \"\""),
        format!("{home}/data/x = \"\\u{{1b}}[2J\""),
        format!("{home}/name = \"demo\""),
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        ok(&host, &["store", "read", "/local/domain/3/data/x"]),
        "\\u{1b}[2J\n"
    );
    assert_eq!(fails(&host, &["store", "read", "/nothing"]).0, 1);
    assert_eq!(ok(&host, &["store", "stats"]), "nodes 5\n");
}

#[test]
fn info_uses_xls_words() {
    let printed = ok(&host(), &["info"]);
    assert!(
        printed.contains("xen_version            : 4.17.5\n"),
        "{printed}"
    );
    assert!(
        printed.contains("cpu_mhz                : 2400.056\n"),
        "{printed}"
    );
}

#[test]
fn ox_describes_itself() {
    use clap::CommandFactory;
    crate::cli::Cli::command().debug_assert();
    let host = host();
    let man = ok(&host, &["man"]);
    for words in ["Exit codes", "vcpu\\-pin", "Ctrl\\-]"] {
        assert!(man.contains(words), "{words}");
    }
    assert!(ok(&host, &["man", "create"]).contains("dry\\-run"));
    assert_eq!(fails(&host, &["man", "frobnicate"]).0, 2);
    assert!(ok(&host, &["completion", "bash"]).contains("vcpu-list"));
    assert!(ok(&host, &["config", "keys"]).contains("on_crash"));
}

#[test]
fn domains_that_wait_to_be_started_again_are_listed() {
    let host = host();
    let files =
        super::Files::new("maxvcpus=3\nvcpus=2\nmax_maptrack_frames=7\nmax_event_channels=99");
    ok(&host, &["create", &files.config(), "name=web"]);
    {
        let mut world = host.0.borrow_mut();
        world.domains.retain(|domain| domain.domid != 4);
        world.nodes.remove("/local/domain/4/name");
    }
    let directory = crate::host::Toolstack::records(&host);
    let held =
        crate::records::Held::take(&directory, "web").unwrap_or_else(|error| panic!("{error}"));
    let record = held.read().ok().flatten();
    let mut record = record.unwrap_or_else(|| panic!("no record"));
    record.phase = crate::records::Phase::Restarting {
        old: None,
        not_before: host.0.borrow().uptime + 30,
    };
    held.write(&record)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        ok(&host, &["list"]),
        "Name      ID  Mem  VCPUs   State  Time(s)\n\
         Domain-0   0  256      2  -b----     12.3\n\
         demo       3  256      2  -b----     12.3\n\
         web        -    0      0       -        -\n",
    );
    let long = ok(&host, &["list", "-l", "web"]);
    assert!(long.contains("starts again in 30 s"), "{long}");
    assert!(long.contains("99") && !long.contains("demo"), "{long}");
    let json: serde_json::Value = serde_json::from_str(&ok(&host, &["list", "--json"]))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(json[2]["waits"]["seconds"], 30);
    assert_eq!(json[2]["max_maptrack_frames"], 7);
    assert_eq!(json[2]["domid"], serde_json::Value::Null);
    assert_eq!(json[1]["waits"], serde_json::Value::Null);
    assert_eq!(fails(&host, &["list", "web", "nobody"]).0, 4);
}

#[test]
fn limits_are_listed() {
    let host = host();
    let files = super::Files::new("max_event_channels=99");
    ok(&host, &["create", &files.config(), "name=web"]);
    let json: serde_json::Value = serde_json::from_str(&ok(&host, &["list", "--json", "web"]))
        .unwrap_or_else(|error| panic!("{error}"));
    for (key, value) in [
        ("max_event_channels", 99),
        ("max_maptrack_frames", 1024),
        ("grant_frames", 1),
        ("max_grant_frames", 64),
        ("max_tables_kib", 4096),
    ] {
        assert_eq!(json[0][key], value, "{key}");
    }
    // One that ox did not make has those that the hypervisor tells.
    let long = ok(&host, &["list", "-l", "demo"]);
    assert!(long.contains("1/64") && long.contains("4096"), "{long}");
    let info = ok(&host, &["info"]);
    for limit in [
        "max_domain_vcpus       : 32",
        "max_domain_event_channels : 131071",
        "outstanding_claims     : 0",
        "scrub_pages            : 0",
    ] {
        assert!(info.contains(limit), "{info}");
    }
}

#[test]
fn debug_keys_are_pressed() {
    let host = host();
    ok(&host, &["debug-keys", "qr"]);
    assert_eq!(host.0.borrow().calls, ["keys qr"]);
    for wrong in ["", "q r", "ü"] {
        assert_eq!(fails(&host, &["debug-keys", wrong]).0, 2, "{wrong:?}");
    }
}

#[test]
fn every_verb_has_an_example() {
    use clap::CommandFactory;
    let mut command = crate::cli::Cli::command();
    command.build();
    for verb in command
        .get_subcommands_mut()
        .filter(|verb| verb.get_name() != "help")
    {
        let name = verb.get_name().to_owned();
        let help = verb.render_help().to_string();
        assert!(
            help.contains(&format!("  ox {name}")) || help.contains(&format!("Example: ox {name}")),
            "{name}: {help}"
        );
    }
}
