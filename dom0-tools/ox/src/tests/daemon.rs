//! The nodes of domains in a real xenstored. Needs one that serves a socket without a hypervisor:
//!
//! ```sh
//! xenstored --no-domains --socket /tmp/xs/socket --state /tmp/xs/state &
//! XENSTORED_PATH=/tmp/xs/socket cargo test -p oxen-ox -- --ignored
//! ```

use oxen_config::parse;
use uuid::Uuid;

use crate::failure::Failure;
use crate::host::xenstore::Connection;
use crate::host::{Access, Built, Change, Store};
use crate::{names, tree};

fn store() -> Result<Connection, Failure> {
    Connection::open()
}

/// Every node below a path, with its value.
fn walk(store: &mut dyn Store, path: &str, found: &mut Vec<String>) -> std::io::Result<()> {
    for name in store.list(path)? {
        let child = format!("{}/{name}", path.trim_end_matches('/'));
        let value = store.read(&child)?;
        found.push(format!("{child}={}", value.unwrap_or_default()));
        walk(store, &child, found)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs xenstored at XENSTORED_PATH"]
fn a_domains_nodes_come_and_go_whole() -> Result<(), Box<dyn std::error::Error>> {
    let text = "type='pvh'; name='demo'; kernel='/k'; memory=64; vcpus=2; maxvcpus=32";
    let config = parse("demo.cfg", text, &[])?.config;
    let uuid = Uuid::from_u128(7);
    let built = Built {
        domid: 5,
        console_gfn: 0xFEFFF,
        console_port: 2,
        store_gfn: 0xFEFFC,
        store_port: 1,
    };
    let mut store = store()?;
    let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
    walk(&mut store, "/local", &mut before)?;
    walk(&mut store, "/vm", &mut before)?;

    store.apply(&tree::creation(&config, uuid, &built, 1_700_000_000))?;
    assert_eq!(names::with_name(&mut store, "demo")?, [5]);
    walk(&mut store, "/local/domain/5", &mut during)?;
    for node in [
        "/local/domain/5/name=demo",
        "/local/domain/5/cpu/1/availability=online",
        "/local/domain/5/cpu/31/availability=offline",
        "/local/domain/5/console/ring-ref=1044479",
        "/local/domain/5/device/suspend/event-channel=",
        "/local/domain/5/control/shutdown=",
    ] {
        assert!(during.contains(&node.to_owned()), "{node} in {during:#?}");
    }

    // A transaction that cannot be done whole is not done at all.
    let half = [
        Change::Write {
            path: "/local/domain/5/half".to_owned(),
            value: "1".to_owned(),
            access: Some(Access::GuestOwns(5)),
        },
        Change::Write {
            path: "/local//wrong".to_owned(),
            value: "1".to_owned(),
            access: None,
        },
    ];
    assert!(store.apply(&half).is_err());
    assert_eq!(store.read("/local/domain/5/half")?, None);

    let vm = tree::vm_path(uuid);
    store.apply(&tree::removal(5, Some(&vm)))?;
    // Again: what is gone is no error.
    store.apply(&tree::removal(5, Some(&vm)))?;
    store.release(5)?;
    walk(&mut store, "/local", &mut after)?;
    walk(&mut store, "/vm", &mut after)?;
    after.retain(|node| !["/local/domain=", "/vm="].contains(&node.as_str()));
    before.retain(|node| !["/local/domain=", "/vm="].contains(&node.as_str()));
    assert_eq!(after, before);
    Ok(())
}
