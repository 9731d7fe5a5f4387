//! Bridges for the network cards that Linux's own back end serves (`type=kernel`): it makes an interface for each, and begins to serve when
//! somebody has put that where it belongs and says so (`hotplug-status`).

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use oxen_backend::device::{DeviceId, root};
use oxen_backend::{State, Store};
use oxen_xenstore::client::Client;

use crate::tap;
use crate::worker::patiently;

/// Where that back end's devices are.
const KIND: &str = "vif";
/// How often a lost xenstored is looked for.
const RECONNECT: Duration = Duration::from_secs(1);

/// Begins to watch, in a thread.
pub fn start(socket: PathBuf) {
    thread::spawn(move || {
        loop {
            // The other connection of this program says what is wrong.
            if let Err(error) = watch(&socket) {
                log::debug!("{error}");
            }
            thread::sleep(RECONNECT);
        }
    });
}

fn watch(socket: &Path) -> io::Result<()> {
    let mut client = Client::connect(socket).map_err(io::Error::other)?;
    Store::watch(&mut client, &root(KIND), "all")?;
    loop {
        let event = client.wait_event(None).map_err(io::Error::other)?;
        let device = event.and_then(|event| DeviceId::of_path(KIND, &event.path));
        match device {
            Some(device) => look(&mut client, device)?,
            None => {
                for device in all(&mut client)? {
                    look(&mut client, device)?;
                }
            }
        }
    }
}

fn all(store: &mut dyn Store) -> io::Result<Vec<DeviceId>> {
    let root = root(KIND);
    let mut found = Vec::new();
    for domid in store.list(&root)? {
        for number in store.list(&format!("{root}/{domid}"))? {
            found.extend(DeviceId::of_path(KIND, &format!("{root}/{domid}/{number}")));
        }
    }
    Ok(found)
}

/// Puts a card's interface where it belongs, once it is there.
fn look(store: &mut dyn Store, device: DeviceId) -> io::Result<()> {
    let path = device.path(KIND);
    let mut read = |name: &str| store.read(&format!("{path}/{name}"));
    let offered = read("state")?.is_some_and(|text| State::from_text(&text) == State::InitWait);
    // The tools leave it empty for whoever does this.
    if !offered || read("hotplug-status")?.as_deref() != Some("") {
        return Ok(());
    }
    let bridge = read("bridge")?.filter(|name| !name.is_empty());
    let mtu = read("mtu")?.and_then(|text| text.parse().ok());
    let interface = format!("vif{}.{}", device.domid, device.number);
    // The kernel makes it after it has made its offer.
    let joined = patiently(tap::is_absent, || {
        tap::join(&interface, bridge.as_deref(), mtu)
    });
    let status = match joined {
        Ok(()) => "connected",
        Err(error) => {
            log::error!("{device}: interface {interface}: {error}");
            "error"
        }
    };
    log::info!("{device}: interface {interface}: {status}");
    store.write(&path, &[("hotplug-status".to_owned(), status.to_owned())])
}
