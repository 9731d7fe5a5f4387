//! The loop that watches the devices of one kind, and steps each through its states.

#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::device::{DeviceId, root};
use crate::journal::Journals;
use crate::nodes::Ends;
use crate::state::{Situation, State, Step, next_step};
use crate::{Driver, Event, Failure, Store};

/// How often a lost xenstored is looked for.
const RECONNECT: Duration = Duration::from_secs(1);
/// Least time between two connections of a device: a guest that connects again and again, or a worker that dies again and again, shall
/// not keep this domain busy.
const PAUSE: Duration = Duration::from_millis(250);
/// Changes of xenstore that are looked at before anything else has its turn.
const CHANGES: usize = 64;
/// Token of the watch on all back ends.
const ALL: &str = "all";

/// What is known of a device.
#[derive(Debug, Default)]
struct Known {
    serving: bool,
    /// It is not served any more, but what was begun for it is not over. Until then nothing else is done about it.
    ending: bool,
    /// Where the front end's nodes are.
    front: String,
    /// It may not be connected before.
    not_before: Option<Instant>,
}

/// All devices of one kind.
pub struct Manager<D: Driver, S: Store, C: FnMut() -> io::Result<S>> {
    driver: D,
    /// What workers leave to those after them.
    journals: Journals,
    connect: C,
    store: Option<S>,
    retry_at: Instant,
    /// That there is no xenstored was said, once.
    complained: bool,
    devices: BTreeMap<DeviceId, Known>,
    /// Devices that are to be looked at.
    changed: BTreeSet<DeviceId>,
    /// Devices that are to be looked at later.
    deferred: BTreeMap<DeviceId, Instant>,
    /// Changes may have arrived that the store's descriptor does not show any more.
    busy: bool,
}

impl<D: Driver, S: Store, C: FnMut() -> io::Result<S>> Manager<D, S, C> {
    /// Without devices yet. `connect` makes a connection to xenstored, again if one is lost.
    pub fn new(driver: D, journals: Journals, connect: C) -> Self {
        Self {
            driver,
            journals,
            connect,
            store: None,
            retry_at: Instant::now(),
            complained: false,
            devices: BTreeMap::new(),
            changed: BTreeSet::new(),
            deferred: BTreeMap::new(),
            busy: false,
        }
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// Polling failed: nothing can go on then.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.turn(None)?;
        }
    }

    /// One turn: waits for something to do, at most for `timeout`, and does it.
    ///
    /// # Errors
    /// As for [`Manager::run`].
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reconnect();
        self.wait(timeout)?;
        for event in self.driver.events() {
            self.happened(event);
        }
        let done = self
            .take_changes()
            .and_then(|()| self.step_all())
            .map_err(Failure::from);
        if let Err(error) = done {
            log::warn!("{error}; devices that are served go on, others wait for xenstored");
            self.store = None;
        }
        Ok(())
    }

    /// The driver.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    fn reconnect(&mut self) {
        let now = Instant::now();
        if self.store.is_some() || now < self.retry_at {
            return;
        }
        self.retry_at = now + RECONNECT;
        let connected = (self.connect)().and_then(|mut store| {
            store.watch(&root(D::KIND), ALL)?;
            for (&device, known) in &self.devices {
                store.watch(&state_of(&known.front), &token_of(device))?;
            }
            Ok(store)
        });
        match connected {
            Ok(store) => {
                log::info!("connected to xenstored");
                self.complained = false;
                self.store = Some(store);
                self.busy = true;
                // What went while nobody watched has to be missed.
                self.changed.extend(self.devices.keys());
                self.changed.extend(self.journals.devices());
            }
            Err(error) if self.complained => log::debug!("{error}"),
            Err(error) => {
                log::warn!("{error}; trying again every second");
                self.complained = true;
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        let retry = (self.store.is_none()).then(|| self.retry_at.saturating_duration_since(now));
        let due = (self.deferred.values())
            .map(|at| at.saturating_duration_since(now))
            .min()
            .filter(|_| self.store.is_some());
        let busy = self.busy.then_some(Duration::ZERO);
        let timeout = [timeout, retry, due, busy].into_iter().flatten().min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let descriptors = self.driver.descriptors();
        let mut fds: Vec<PollFd<'_>> = (descriptors.into_iter())
            .chain(self.store.iter().map(Store::descriptor))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Lost(device) => {
                if let Some(known) = self.devices.get_mut(&device) {
                    log::warn!("{device}: it is not served any more; connecting it again");
                    known.serving = false;
                    self.changed.insert(device);
                }
            }
            Event::Ended(device) => {
                if let Some(known) = self.devices.get_mut(&device) {
                    known.ending = false;
                    forget(&self.journals, device);
                    self.changed.insert(device);
                }
            }
            Event::Failed(device, failure) => {
                if let Err(error) = self.give_up(device, &failure) {
                    log::warn!("{error}");
                    self.store = None;
                }
            }
        }
    }

    /// Notes the devices that something changed about.
    fn take_changes(&mut self) -> io::Result<()> {
        self.busy = false;
        for _ in 0..CHANGES {
            let Some(store) = &mut self.store else {
                return Ok(());
            };
            let Some(change) = store.changed()? else {
                return Ok(());
            };
            if change.token != ALL {
                self.changed.extend(device_of(&change.token));
            } else if let Some(device) = DeviceId::of_path(D::KIND, &change.path) {
                self.changed.insert(device);
            } else {
                // A whole guest's devices, or all of them.
                self.changed.extend(self.devices.keys());
                self.find_all()?;
            }
        }
        self.busy = true;
        Ok(())
    }

    fn find_all(&mut self) -> io::Result<()> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let root = root(D::KIND);
        for domid in store.list(&root)? {
            for number in store.list(&format!("{root}/{domid}"))? {
                let path = format!("{root}/{domid}/{number}");
                self.changed.extend(DeviceId::of_path(D::KIND, &path));
            }
        }
        Ok(())
    }

    fn step_all(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let due = self.deferred.extract_if(.., |_, at| *at <= now);
        self.changed.extend(due.map(|(device, _)| device));
        for device in std::mem::take(&mut self.changed) {
            if self.store.is_none() {
                self.changed.insert(device);
                continue;
            }
            self.busy = true;
            match self.step(device) {
                Ok(()) => {}
                // After a new connection all are looked at.
                Err(Failure::Store(error)) => return Err(error),
                Err(failure) => self.give_up(device, &failure)?,
            }
        }
        Ok(())
    }

    /// Steps a device until there is nothing to do about it.
    fn step(&mut self, device: DeviceId) -> Result<(), Failure> {
        // The table comes to rest within a few steps; whatever happens, others get their turn.
        for _ in 0..8 {
            let Some((back, situation)) = self.situation(device)? else {
                return Ok(());
            };
            let step = next_step(situation);
            if matches!(step, Step::Connect | Step::Resume) && !self.may_connect(device) {
                return Ok(());
            }
            if step == Step::Wait {
                return Ok(());
            }
            log::debug!("{device}: {situation:?}: {step:?}");
            self.take_step(device, &back, step)?;
        }
        self.changed.insert(device);
        Ok(())
    }

    /// How a device stands, and its path; `None` if it is not there any more, which is dealt with.
    fn situation(&mut self, device: DeviceId) -> io::Result<Option<(String, Situation)>> {
        let Some(store) = &mut self.store else {
            return Ok(None);
        };
        if self.devices.get(&device).is_some_and(|known| known.ending) {
            return Ok(None);
        }
        let back = device.path(D::KIND);
        let front = store.read(&format!("{back}/frontend"))?;
        let state = store.read(&format!("{back}/state"))?;
        let (Some(front), Some(state)) = (front, state) else {
            self.gone(device)?;
            return Ok(None);
        };
        match self.devices.entry(device) {
            Entry::Vacant(unknown) => {
                log::info!("{device}: found");
                store.watch(&state_of(&front), &token_of(device))?;
                let known = Known {
                    front: front.clone(),
                    ..Known::default()
                };
                unknown.insert(known);
            }
            // It went and came back while nobody looked.
            Entry::Occupied(mut known) if known.get().front != front => {
                let known = known.get_mut();
                store.unwatch(&state_of(&known.front), &token_of(device))?;
                store.watch(&state_of(&front), &token_of(device))?;
                known.front.clone_from(&front);
            }
            Entry::Occupied(_) => {}
        }
        let situation = Situation {
            front: (store.read(&state_of(&front))?).map(|text| State::from_text(&text)),
            back: State::from_text(&state),
            online: store.read(&format!("{back}/online"))?.as_deref() == Some("1"),
            serving: self.devices.get(&device).is_some_and(|known| known.serving),
            begun: self.journals.has(device),
        };
        Ok(Some((back, situation)))
    }

    /// The tools have removed a device.
    fn gone(&mut self, device: DeviceId) -> io::Result<()> {
        let ending = self.let_go(device);
        let (Some(store), Entry::Occupied(known)) = (&mut self.store, self.devices.entry(device))
        else {
            return Ok(());
        };
        // One that is not over is looked at once more when it is.
        if !ending {
            log::info!("{device}: gone");
            let known = known.remove();
            store.unwatch(&state_of(&known.front), &token_of(device))?;
        }
        Ok(())
    }

    /// Whether a device was not connected a moment ago; if it was it is looked at again.
    fn may_connect(&mut self, device: DeviceId) -> bool {
        let now = Instant::now();
        let Some(known) = self.devices.get_mut(&device) else {
            return false;
        };
        if let Some(at) = known.not_before.filter(|at| *at > now) {
            self.deferred.insert(device, at);
            return false;
        }
        known.not_before = Some(now + PAUSE);
        true
    }

    fn take_step(&mut self, device: DeviceId, back: &str, step: Step) -> Result<(), Failure> {
        let (Some(store), Some(known)) = (&mut self.store, self.devices.get_mut(&device)) else {
            return Ok(());
        };
        match step {
            Step::Wait => {}
            Step::Offer => {
                // The guest brings new rings when it sees the offer, and not before.
                (self.journals.remove(device)).map_err(|error| Failure::Host(error.to_string()))?;
                let mut offered = self
                    .driver
                    .offer(device, &mut Ends::new(store, back, &known.front))?;
                offered.push(entered(State::InitWait));
                store.write(back, &offered)?;
            }
            Step::Connect | Step::Resume => {
                let mut ends = Ends::new(store, back, &known.front);
                let mut connected = self.driver.connect(device, &mut ends)?;
                known.serving = true;
                if step == Step::Connect {
                    connected.push(entered(State::Connected));
                    store.write(back, &connected)?;
                }
                log::info!(
                    "{device}: {}",
                    if step == Step::Connect {
                        "connected"
                    } else {
                        "taken up again"
                    }
                );
            }
            Step::Stop => {
                self.let_go(device);
                log::info!("{device}: not served any more");
            }
            Step::Enter(state) => {
                if !known.serving {
                    forget(&self.journals, device);
                }
                store.write(back, &[entered(state)])?;
            }
        }
        Ok(())
    }

    /// Lets go of a device's rings for good. True: it takes a while, and is told when it is over.
    fn let_go(&mut self, device: DeviceId) -> bool {
        let ending = self.driver.disconnect(device);
        // One that went while there was no manager is known by its journal only.
        forget(&self.journals, device);
        if let Some(known) = self.devices.get_mut(&device) {
            (known.serving, known.ending) = (false, ending);
        }
        ending
    }

    /// Closes a device that cannot be served, and says why: in the log, and for tools beside the device.
    fn give_up(&mut self, device: DeviceId, failure: &Failure) -> io::Result<()> {
        self.let_go(device);
        let Some(store) = &mut self.store else {
            log::error!("{device}: closed: {failure}");
            return Ok(());
        };
        let name = store.read(&format!("/local/domain/{}/name", device.domid))?;
        log::error!(
            "{device} (guest {}): closed: {failure}",
            name.as_deref().unwrap_or("without a name")
        );
        let error = ("error".to_owned(), failure.to_string());
        store.write(&device.path(D::KIND), &[error, entered(State::Closed)])
    }
}

/// Removes the journal of rings that are given up. One that stays is removed before there are new ones.
fn forget(journals: &Journals, device: DeviceId) {
    if let Err(error) = journals.remove(device) {
        log::warn!("{device}: {error}");
    }
}

fn entered(state: State) -> (String, String) {
    ("state".to_owned(), state.text())
}

fn state_of(end: &str) -> String {
    format!("{end}/state")
}

/// Token of the watch on a device's front end.
fn token_of(device: DeviceId) -> String {
    format!("{}/{}", device.domid, device.number)
}

fn device_of(token: &str) -> Option<DeviceId> {
    let (domid, number) = token.split_once('/')?;
    Some(DeviceId {
        domid: domid.parse().ok()?,
        number: number.parse().ok()?,
    })
}
