//! A host that is not there: domains in a list, xenstore in a map, and any operation can be made to fail.

mod hypervisor;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use uuid::Uuid;

use super::{Access, Change, DomainState, Hypervisor, Share, Store, Toolstack};
use crate::failure::Failure;

/// CPUs of the machine.
pub const CPUS: u32 = 4;

/// CPUs that a vCPU may and should run on.
type Affinity = (BTreeSet<u32>, BTreeSet<u32>);

/// What a test looks at.
#[derive(Default)]
pub struct World {
    pub domains: Vec<DomainState>,
    pub shares: BTreeMap<u16, Share>,
    pub rate_limit: u32,
    pub affinities: BTreeMap<(u16, u32), Affinity>,
    pub nodes: BTreeMap<String, (String, Option<Access>)>,
    pub introduced: BTreeSet<u16>,
    pub attached: Vec<String>,
    /// Operations in the order in which they came.
    pub calls: Vec<String>,
    /// The operation that fails.
    pub fails: Option<&'static str>,
    /// Another one.
    pub also_fails: Option<&'static str>,
    /// Where records are.
    pub directory: Option<tempfile::TempDir>,
    /// No supervisor runs.
    pub unsupervised: bool,
    /// Seconds that dom0 has been running.
    pub uptime: u64,
    pub slept: Duration,
    /// What happens at each sleep.
    pub at_sleep: Option<fn(&mut World)>,
    /// What happens when a domain has been built, as another tool would do it meanwhile.
    pub at_build: Option<fn(&mut World)>,
}

impl World {
    fn call(&mut self, name: &'static str, about: String) -> io::Result<()> {
        self.calls
            .push(format!("{name} {about}").trim_end().to_owned());
        if self.fails == Some(name) || self.also_fails == Some(name) {
            return Err(io::Error::other(format!("{name} fails")));
        }
        Ok(())
    }

    fn find(&mut self, domid: u16) -> io::Result<&mut DomainState> {
        let found = self.domains.iter_mut().find(|domain| domain.domid == domid);
        found.ok_or_else(|| io::Error::other("ESRCH"))
    }

    /// Puts a node there.
    pub fn put(&mut self, path: &str, value: &str) {
        self.nodes.insert(path.to_owned(), (value.to_owned(), None));
    }

    /// A domain that runs.
    pub fn add(&mut self, domid: u16, name: &str) {
        self.domains
            .push(state(domid, Uuid::from_u128(domid.into()), 2, 256 * 1024));
        self.shares.insert(
            domid,
            Share {
                weight: 256,
                cap: 0,
            },
        );
        self.put(&format!("/local/domain/{domid}/name"), name);
    }
}

/// The state of a new domain.
pub fn state(domid: u16, uuid: Uuid, vcpus: u32, memory_kib: u64) -> DomainState {
    DomainState {
        domid,
        uuid,
        dying: false,
        shutdown: None,
        paused: false,
        blocked: true,
        running: false,
        memory_kib,
        max_memory_kib: memory_kib,
        vcpus_online: vcpus,
        vcpus,
        cpu_time_ns: 12_340_000_000,
    }
}

/// The host; hypervisor and xenstore share its world.
#[derive(Clone, Default)]
pub struct Fake(pub Rc<RefCell<World>>);

impl Fake {
    /// A machine with dom0 only.
    pub fn new() -> Self {
        let fake = Self::default();
        {
            let mut world = fake.0.borrow_mut();
            world.add(0, "Domain-0");
            world.uptime = 90_061;
            world.directory = tempfile::tempdir().ok();
        }
        fake
    }
}

impl Toolstack for Fake {
    fn xen(&mut self) -> Result<&mut dyn Hypervisor, Failure> {
        Ok(self)
    }

    fn store(&mut self) -> Result<&mut dyn Store, Failure> {
        if self.0.borrow().fails == Some("connect") {
            return Err(Failure::Unreachable {
                what: "xenstored",
                error: "connect fails".to_owned(),
            });
        }
        Ok(self)
    }

    fn attach(&mut self, tty: &str) -> Result<(), Failure> {
        self.0.borrow_mut().attached.push(tty.to_owned());
        Ok(())
    }

    fn sleep(&mut self, time: Duration) {
        let mut world = self.0.borrow_mut();
        world.slept += time;
        if let Some(action) = world.at_sleep {
            action(&mut world);
        }
    }

    fn unix_time(&self) -> u64 {
        1_700_100_000
    }

    fn uptime(&self) -> io::Result<u64> {
        Ok(self.0.borrow().uptime)
    }

    fn records(&self) -> PathBuf {
        let world = self.0.borrow();
        let directory = world.directory.as_ref();
        directory.map_or_else(PathBuf::new, |directory| directory.path().to_owned())
    }

    fn is_supervised(&self) -> bool {
        !self.0.borrow().unsupervised
    }
}

impl Store for Fake {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        Ok(self
            .0
            .borrow()
            .nodes
            .get(path)
            .map(|(value, _)| value.clone()))
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let below = format!("{path}/");
        let names: BTreeSet<_> = self
            .0
            .borrow()
            .nodes
            .keys()
            .filter_map(|node| {
                node.strip_prefix(&below)?
                    .split('/')
                    .next()
                    .map(str::to_owned)
            })
            .collect();
        Ok(names.into_iter().collect())
    }

    fn stats(&mut self) -> io::Result<String> {
        Ok(format!("nodes {}\n", self.0.borrow().nodes.len()))
    }

    fn apply(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let removes = |change: &Change| matches!(change, Change::Remove { .. });
        let kind = if changes.iter().all(removes) {
            "remove"
        } else {
            "apply"
        };
        world.call(kind, String::new())?;
        for change in changes {
            match change {
                Change::Write {
                    path,
                    value,
                    access,
                } => {
                    world.nodes.insert(path.clone(), (value.clone(), *access));
                }
                Change::Remove { path } => {
                    let below = format!("{path}/");
                    world
                        .nodes
                        .retain(|node, _| node != path && !node.starts_with(&below));
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let path = path.to_owned();
        self.apply(&[Change::Remove { path }])
    }

    fn introduce(&mut self, domid: u16, _gfn: u64, _port: u32) -> io::Result<()> {
        self.0.borrow_mut().call("introduce", domid.to_string())?;
        self.0.borrow_mut().introduced.insert(domid);
        let tty = format!("/local/domain/{domid}/console/tty");
        self.0.borrow_mut().put(&tty, "/dev/pts/7");
        Ok(())
    }

    fn release(&mut self, domid: u16) -> io::Result<()> {
        self.0.borrow_mut().call("release", domid.to_string())?;
        self.0.borrow_mut().introduced.remove(&domid);
        Ok(())
    }
}
