//! The machine that `ox` runs on.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::xen::Real;
use super::xenstore::Connection;
use super::{Hypervisor, Store, Toolstack};
use crate::console;
use crate::failure::{Context, Failure};
use crate::{records, supervise};

/// Hypervisor and xenstore of this machine, opened when first asked for.
#[derive(Default)]
pub struct Machine {
    xen: Option<Real>,
    store: Option<Connection>,
}

impl Toolstack for Machine {
    fn xen(&mut self) -> Result<&mut dyn Hypervisor, Failure> {
        let xen = match self.xen.take() {
            Some(xen) => xen,
            None => Real::open()?,
        };
        Ok(self.xen.insert(xen))
    }

    fn store(&mut self) -> Result<&mut dyn Store, Failure> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Connection::open()?,
        };
        Ok(self.store.insert(store))
    }

    fn attach(&mut self, tty: &str) -> Result<(), Failure> {
        console::attach(tty).context(|| format!("attach to {tty}"))
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn unix_time(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    }

    fn uptime(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string("/proc/uptime")?;
        let seconds = text.split('.').next().and_then(|text| text.parse().ok());
        seconds.ok_or_else(|| io::Error::other("/proc/uptime does not begin with a number"))
    }

    fn records(&self) -> PathBuf {
        PathBuf::from(records::DIRECTORY)
    }

    fn is_supervised(&self) -> bool {
        supervise::is_running()
    }
}
