//! Typed configurations: every kind of key, every way to be wrong.

use oxen_config::keys::{KEYS, Kind, Treatment};
use oxen_config::{Action, Affinity, DomainConfig, parse};

const BASE: &str = "type = 'pvh'\nname = 'web1'\nkernel = '/boot/vmlinuz'\nmemory = 256\n";

fn good(extra: &str) -> DomainConfig {
    match parse("web1.cfg", &format!("{BASE}{extra}"), &[]) {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{extra}: {errors}"),
    }
}

fn bad(extra: &str) -> String {
    match parse("web1.cfg", &format!("{BASE}{extra}"), &[]) {
        Ok(parsed) => panic!("{extra}: accepted as {parsed:?}"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_small_configuration_gets_xls_defaults() {
    let config = good("");
    assert_eq!((config.vcpus, config.maxvcpus), (1, 1));
    assert_eq!((config.memory_mib, config.maxmem_mib), (256, 256));
    assert_eq!((config.cpu_weight, config.cap), (256, 0));
    assert_eq!(config.cpus, Affinity::Any);
    assert_eq!(config.actions.on_poweroff, Action::Destroy);
    assert_eq!(config.actions.on_reboot, Action::Restart);
    assert_eq!(config.cmdline, "");
    assert_eq!(config.max_event_channels, 1023);
}

#[test]
fn words_of_the_command_line_win() {
    let words = ["memory=512".to_owned(), "name=web2".to_owned()];
    let parsed = parse("web1.cfg", BASE, &words).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parsed.config.memory_mib, 512);
    assert_eq!(parsed.config.name, "web2");
}

#[test]
fn the_command_line_is_joined_as_xl_does() {
    assert_eq!(
        good("root='/dev/xvda'\nextra='quiet'").cmdline,
        "root=/dev/xvda quiet"
    );
    assert_eq!(good("extra='quiet'\nextra+=' ro'").cmdline, "quiet ro");
    let parsed = parse("web1.cfg", &format!("{BASE}cmdline='a'\nextra='b'"), &[]);
    let parsed = parsed.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parsed.config.cmdline, "a");
    assert_eq!(
        parsed.warnings[0].to_string(),
        "web1.cfg:6:1: extra: has no effect beside cmdline; put it into cmdline",
    );
}

/// For each honoured key a value that differs from the default, and one that is refused.
const HONOURED: &[(&str, &str, &str)] = &[
    ("name", "'db1'", "'12'"),
    ("type", "\"pvh\"", "'hvm'"),
    ("uuid", "'6f8b0c1e-4a53-4d58-9c6e-3c5a2d9f7b10'", "'zz'"),
    ("kernel", "'/k'", "''"),
    ("ramdisk", "'/initrd'", "['/a']"),
    ("cmdline", "'quiet'", "[]"),
    ("root", "'/dev/xvda1'", "[]"),
    ("extra", "'ro'", "[]"),
    ("memory", "0x200", "0"),
    ("maxmem", "'512'", "128"),
    ("vcpus", "2", "33"),
    ("maxvcpus", "4", "0"),
    ("cpus", "'0-3,^2'", "'all-'"),
    ("cpus_soft", "['1']", "['0', '1']"),
    ("cpu_weight", "512", "0"),
    ("cap", "50", "65536"),
    ("on_poweroff", "'preserve'", "'explode'"),
    ("on_reboot", "'destroy'", "'restrat'"),
    ("on_crash", "'restart'", "1"),
    ("on_watchdog", "'restart'", "[]"),
    ("on_soft_reset", "'destroy'", "''"),
    ("max_grant_frames", "8", "'-1'"),
    ("max_maptrack_frames", "8", "'x'"),
    ("max_grant_version", "1", "3"),
    ("max_event_channels", "64", "0"),
    (
        "disk",
        "['/dev/vg/web1,raw,xvda,rw']",
        "'/dev/vg/web1,raw,xvda,rw'",
    ),
    ("vif", "['']", "['brigde=xenbr0']"),
];

#[test]
fn every_honoured_key_changes_the_configuration_and_checks_its_value() {
    let base = good("");
    for key in KEYS
        .iter()
        .filter(|key| key.treatment == Treatment::Honoured)
    {
        let row = HONOURED.iter().find(|(name, ..)| *name == key.name);
        let Some((name, value, wrong)) = row else {
            panic!("no example for {}", key.name);
        };
        // The type has one value only.
        assert!(
            good(&format!("{name} = {value}")) != base || *name == "type",
            "{name}"
        );
        let error = bad(&format!("{name} = {wrong}"));
        assert!(error.starts_with("web1.cfg:5:"), "{name}: {error}");
        assert!(error.contains(&format!(": {name}: ")), "{name}: {error}");
    }
}

#[test]
fn every_other_key_is_refused_or_reported() {
    for key in KEYS {
        let value = match key.kind {
            Kind::Text => "'something'",
            Kind::Number | Kind::Boolean | Kind::NumberOrText => "77",
            Kind::List | Kind::TextOrList => "['something']",
        };
        let line = format!("{} = {value}", key.name);
        match key.treatment {
            Treatment::Honoured => {}
            Treatment::Meaningless { reason } => {
                let parsed = parse("web1.cfg", &format!("{BASE}{line}"), &[]);
                let parsed = parsed.unwrap_or_else(|errors| panic!("{errors}"));
                assert_eq!(parsed.warnings.len(), 1, "{line}");
                assert!(parsed.warnings[0].to_string().contains(reason), "{line}");
            }
            // Any number but 0 is yes, so 77 is what `hap = 1` says.
            Treatment::Unsupported {
                accepted: ["1"], ..
            } => {
                assert!(
                    bad(&format!("{} = 0", key.name)).contains("not supported"),
                    "{line}"
                );
            }
            Treatment::Unsupported { reason, accepted } => {
                assert!(bad(&line).contains(reason), "{line}");
                for fine in accepted {
                    good(&format!("{} = '{fine}'", key.name));
                }
            }
        }
    }
}

#[test]
fn errors_suggest_what_was_meant() {
    assert_eq!(
        bad("vcpu = 2"),
        "web1.cfg:5:1: vcpu: unknown key; did you mean \"vcpus\"?"
    );
    assert_eq!(
        bad("on_crash = 'restrat'"),
        "web1.cfg:5:12: on_crash: cannot be \"restrat\"; did you mean \"restart\"?",
    );
    assert_eq!(
        bad("vif = [ 'brigde=xenbr0' ]"),
        "web1.cfg:5:9: vif: vif \"brigde=xenbr0\": unknown parameter \"brigde\"; did you mean \"bridge\"?",
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let Err(errors) = parse("empty.cfg", "vcpu = 1\nbootloader = 'pygrub'\n", &[]) else {
        panic!("accepted");
    };
    let told = errors.to_string();
    for key in ["vcpu", "bootloader", "name", "type", "kernel", "memory"] {
        assert!(told.contains(&format!(": {key}: ")), "{key} in\n{told}");
    }
}

#[test]
fn json_gives_the_same_configuration_back() {
    let config = good(
        "vcpus=2\ncpus=['0','all,^1']\ndisk=['/a,,xvda','format=qcow2,vdev=xvdb,target=/b,c']\nvif=['mac=00:16:3e:00:00:01,rate=10Mb/s@20ms']",
    );
    let json = serde_json::to_string(&config).unwrap_or_else(|error| panic!("{error}"));
    let back: DomainConfig = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(back, config);
}
