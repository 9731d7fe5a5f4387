//! What disks and network cards have in common: where their ends are in xenstore, how their back ends are waited for, and how they are
//! closed.

use std::io;
use std::time::Duration;

use crate::failure::{Context, Failure};
use crate::host::{Store, Toolstack};
use crate::{names, tree};

/// How long a back end may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

// States of xenbus that are waited for.
const INIT_WAIT: &str = "2";
const CONNECTED: &str = "4";
const CLOSING: &str = "5";
const CLOSED: &str = "6";

/// A class of devices.
#[derive(Debug)]
pub struct Class {
    /// What people call several.
    pub plural: &'static str,
    /// Its name below `device/` in xenstore, which the kernel's own back end has below `backend/` too.
    pub front: &'static str,
    /// Our back end's name below `backend/`.
    pub back: &'static str,
    /// The program.
    pub daemon: &'static str,
}

/// Disks.
pub static DISKS: Class = Class {
    plural: "disks",
    front: "vbd",
    back: "oxblk",
    daemon: "oxblk",
};

/// Network cards.
pub static VIFS: Class = Class {
    plural: "network cards",
    front: "vif",
    back: "oxvif",
    daemon: "oxnet",
};

/// Who serves a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A program of ours.
    Ox,
    /// Linux's own back end.
    Kernel,
}

impl Server {
    /// Its name in specifications.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ox => "ox",
            Self::Kernel => "kernel",
        }
    }
}

/// A device of a domain, as xenstore has it.
#[derive(Clone, Debug)]
pub struct Device {
    /// Which of the domain's devices of its class.
    pub number: u32,
    /// Who serves it.
    pub server: Server,
    /// Where its back end is.
    pub back: String,
    /// Where its front end is.
    pub front: String,
}

impl Class {
    /// A device of this class.
    pub fn device(&self, domid: u16, number: u32, server: Server) -> Device {
        let kind = self.kind(server);
        Device {
            number,
            server,
            back: format!("{}/{number}", tree::back_ends(kind, domid)),
            front: format!("{}/device/{}/{number}", names::path(domid), self.front),
        }
    }

    /// All devices of this class that a domain has, by their numbers.
    pub fn devices(&self, domid: u16, host: &mut dyn Toolstack) -> Result<Vec<Device>, Failure> {
        let about = || format!("list the {} of domain {domid}", self.plural);
        let mut devices = Vec::new();
        for server in [Server::Ox, Server::Kernel] {
            let back_ends = tree::back_ends(self.kind(server), domid);
            let numbers = host.store()?.list(&back_ends).context(about)?;
            let numbers = numbers.iter().filter_map(|name| name.parse().ok());
            devices.extend(numbers.map(|number| self.device(domid, number, server)));
        }
        devices.sort_by_key(|device| device.number);
        Ok(devices)
    }

    /// Waits until a device's back end has said what it offers, or why it does not. `name` is what its user calls it.
    pub fn wait(
        &self,
        device: &Device,
        name: &str,
        host: &mut dyn Toolstack,
    ) -> Result<(), Failure> {
        if device.is_offered(host)? {
            return Ok(());
        }
        let look = match device.server {
            Server::Kernel => "see dmesg".to_owned(),
            Server::Ox => format!(
                "is {0} running? /var/log/xen/{0}.log has what it says",
                self.daemon
            ),
        };
        Err(Failure::TimedOut(format!(
            "{name}: its back end has not answered within {} s; {look}",
            PATIENCE.as_secs()
        )))
    }

    const fn kind(&self, server: Server) -> &'static str {
        match server {
            Server::Ox => self.back,
            Server::Kernel => self.front,
        }
    }
}

impl Device {
    /// Takes both ends of it out of xenstore, and what Linux said of it. Not at once: the front end is the guest's, whose writes could keep
    /// that from ever being done. As long as the back end is there it is known as the guest's, and can be removed again.
    pub fn remove(&self, store: &mut dyn Store) -> io::Result<()> {
        let said = tree::kernel_error(&self.back);
        [&self.front, &said, &self.back]
            .into_iter()
            .try_for_each(|path| store.remove(path))
    }

    /// Why its back end does not serve it, if that has said so: ours beside the device, Linux's where its xenbus puts errors.
    pub fn error(&self, store: &mut dyn Store) -> io::Result<Option<String>> {
        match store.read(&format!("{}/error", self.back))? {
            None => store.read(&format!("{}/error", tree::kernel_error(&self.back))),
            error => Ok(error),
        }
    }

    /// Waits until its back end has said what it offers. False: not in time.
    fn is_offered(&self, host: &mut dyn Toolstack) -> Result<bool, Failure> {
        let back = &self.back;
        let offers = |state: &str| matches!(state, INIT_WAIT | CONNECTED);
        let closed = |state: &str| matches!(state, CLOSING | CLOSED);
        let waited = wait_for(host, back, |state| offers(state) || closed(state))?;
        match waited {
            Waited::Late => return Ok(false),
            Waited::State(state) if offers(&state) => return Ok(true),
            Waited::State(_) => {}
            Waited::Gone => {
                return Err(Failure::Refused {
                    action: format!("serve {back}"),
                    error: "somebody has removed it".to_owned(),
                });
            }
        }
        let error = self.error(host.store()?);
        let error = error.context(|| format!("look at {back}"))?;
        Err(Failure::Refused {
            action: format!("serve {back}"),
            error: error
                .unwrap_or_else(|| "its back end has closed it and says no reason".to_owned()),
        })
    }

    /// Asks the guest to let go of it, and waits until it has. False: not in time.
    pub fn close(&self, host: &mut dyn Toolstack) -> Result<bool, Failure> {
        let back = &self.back;
        let about = || format!("close {back}");
        let changes = [("online", "0"), ("state", CLOSING)]
            .map(|(name, value)| tree::rewrite(format!("{back}/{name}"), value.to_owned()));
        // One that is closed already stays so.
        let state = host.store()?.read(&format!("{back}/state"));
        let changes = match state.context(about)?.as_deref() {
            None => return Ok(true),
            Some(CLOSED) => &changes[..1],
            Some(_) => &changes[..],
        };
        host.store()?.apply(changes).context(about)?;
        Ok(wait_for(host, back, |state| state == CLOSED)? != Waited::Late)
    }
}

/// What has become of a back end.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    /// It is in a state that was waited for.
    State(String),
    /// It is in none, after all the time that it is given.
    Late,
    /// It is not there any more.
    Gone,
}

/// Waits for a back end's state.
fn wait_for(
    host: &mut dyn Toolstack,
    back: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Waited, Failure> {
    let about = || format!("look at {back}");
    let mut waited = Duration::ZERO;
    loop {
        let state = host.store()?.read(&format!("{back}/state"));
        match state.context(about)? {
            None => return Ok(Waited::Gone),
            Some(state) if wanted(&state) => return Ok(Waited::State(state)),
            Some(_) => {}
        }
        if waited >= PATIENCE {
            return Ok(Waited::Late);
        }
        host.sleep(LOOK);
        waited += LOOK;
    }
}
