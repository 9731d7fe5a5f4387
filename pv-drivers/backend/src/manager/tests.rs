//! The loop with a store and a driver that are made up.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::Written;
use crate::store::Changed;

const BACK: &str = "/local/domain/0/backend/test/3/1";
const FRONT: &str = "/local/domain/3/device/vbd/1";

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, String>,
    watches: Vec<(String, String)>,
    events: VecDeque<Changed>,
    broken: bool,
}

impl Tree {
    fn fire(&mut self, path: &str) {
        for (watched, token) in &self.watches {
            if path == watched || path.starts_with(&format!("{watched}/")) {
                self.events.push_back(Changed {
                    path: path.to_owned(),
                    token: token.clone(),
                });
            }
        }
    }

    fn set(&mut self, path: String, value: &str) {
        self.nodes.insert(path.clone(), value.to_owned());
        self.fire(&path);
    }
}

/// A store in memory, and a descriptor that is never readable: only what is polled for is seen.
struct Fake(Arc<Mutex<Tree>>, OwnedFd);

impl Fake {
    fn tree(&self) -> io::Result<std::sync::MutexGuard<'_, Tree>> {
        let tree = self.0.lock().expect("one thread");
        if tree.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(tree)
    }
}

impl Store for Fake {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        Ok(self.tree()?.nodes.get(path).cloned())
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let tree = self.tree()?;
        let below = format!("{path}/");
        let mut names: Vec<String> = (tree.nodes.keys())
            .filter_map(|node| node.strip_prefix(&below))
            .map(|rest| rest.split('/').next().unwrap_or_default().to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn write(&mut self, base: &str, nodes: &[(String, String)]) -> io::Result<()> {
        let mut tree = self.tree()?;
        for (name, value) in nodes {
            tree.set(format!("{base}/{name}"), value);
        }
        Ok(())
    }

    fn watch(&mut self, path: &str, token: &str) -> io::Result<()> {
        let mut tree = self.tree()?;
        tree.watches.push((path.to_owned(), token.to_owned()));
        tree.fire(path);
        Ok(())
    }

    fn unwatch(&mut self, path: &str, token: &str) -> io::Result<()> {
        let mut tree = self.tree()?;
        tree.watches
            .retain(|watch| watch != &(path.to_owned(), token.to_owned()));
        Ok(())
    }

    fn changed(&mut self) -> io::Result<Option<Changed>> {
        Ok(self.tree()?.events.pop_front())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

/// What was asked of the driver, and what it tells next.
#[derive(Default)]
struct Recorder {
    calls: Vec<String>,
    events: Vec<Event>,
    serving: bool,
    /// What was begun takes until the test says that it is over.
    slow: bool,
}

impl Driver for Recorder {
    const KIND: &'static str = "test";

    fn offer(&mut self, _: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        self.calls
            .push(format!("offer {}", ends.back().required_text("params")?));
        Ok(vec![("feature".to_owned(), "1".to_owned())])
    }

    fn connect(&mut self, _: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        let port: u32 = ends.front().required("event-channel")?;
        self.calls.push(format!("connect {port}"));
        self.serving = true;
        Ok(vec![("sectors".to_owned(), "8".to_owned())])
    }

    fn disconnect(&mut self, device: DeviceId) -> bool {
        if !std::mem::take(&mut self.serving) {
            return false;
        }
        self.calls.push("disconnect".to_owned());
        if !self.slow {
            self.events.push(Event::Ended(device));
        }
        true
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn events(&mut self) -> Vec<Event> {
        let events = std::mem::take(&mut self.events);
        let failed = |event: &Event| matches!(event, Event::Failed(..) | Event::Lost(_));
        self.serving &= !events.iter().any(failed);
        events
    }
}

/// Lets the manager work, and shows the driver.
type Work = Box<dyn FnMut(&mut dyn FnMut(&mut Recorder))>;

struct Bench {
    tree: Arc<Mutex<Tree>>,
    manager: Work,
    folder: Arc<TempDir>,
}

impl Bench {
    /// With a device as the toolstack makes it.
    fn new() -> Self {
        let tree = Arc::new(Mutex::new(Tree::default()));
        let mut bench = Self::over(tree, Arc::new(tempfile::tempdir().expect("a folder")));
        for (path, value) in [
            (format!("{BACK}/frontend"), FRONT),
            (format!("{BACK}/online"), "1"),
            (format!("{BACK}/params"), "/disk"),
            (format!("{FRONT}/state"), "1"),
            (format!("{BACK}/state"), "1"),
            ("/local/domain/3/name".to_owned(), "web"),
        ] {
            bench.set(&path, value);
        }
        bench
    }

    fn over(tree: Arc<Mutex<Tree>>, folder: Arc<TempDir>) -> Self {
        let (idle, _) = rustix::pipe::pipe().expect("a pipe");
        let shared = tree.clone();
        let connect = move || {
            if shared.lock().expect("one thread").broken {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Fake(shared.clone(), idle.try_clone()?))
        };
        let mut manager = Manager::new(Recorder::default(), Journals::new(folder.path()), connect);
        Self {
            tree,
            folder,
            manager: Box::new(move |look| {
                for _ in 0..12 {
                    manager.turn(Some(Duration::ZERO)).expect("polling works");
                }
                look(manager.driver());
            }),
        }
    }

    fn set(&mut self, path: &str, value: &str) {
        let mut tree = self.tree.lock().expect("one thread");
        tree.set(path.to_owned(), value);
    }

    fn front(&mut self, name: &str, value: &str) {
        self.set(&format!("{FRONT}/{name}"), value);
    }

    fn back(&self, name: &str) -> Option<String> {
        let tree = self.tree.lock().expect("one thread");
        tree.nodes.get(&format!("{BACK}/{name}")).cloned()
    }

    /// Lets it work; what was asked of the driver.
    fn work(&mut self) -> Vec<String> {
        let mut calls = Vec::new();
        (self.manager)(&mut |driver| calls = std::mem::take(&mut driver.calls));
        calls
    }

    /// The manager is killed and another one started, which finds what there is.
    fn another(self) -> Self {
        {
            let mut tree = self.tree.lock().expect("one thread");
            tree.watches.clear();
            tree.events.clear();
        }
        Self::over(self.tree, self.folder)
    }

    /// What a worker does with its journal: a word that the one before it has left, and its own.
    fn journal(&self, word: u32) -> u32 {
        let journals = Journals::new(self.folder.path()).open(DEVICE, "9", &[1]);
        journals.expect("a file")[0].as_ref()[0].swap(word, Ordering::Relaxed)
    }

    fn has_journal(&self) -> bool {
        !Journals::new(self.folder.path()).devices().is_empty()
    }

    /// The device's nodes are removed.
    fn removed(&mut self) {
        let mut tree = self.tree.lock().expect("one thread");
        tree.nodes.retain(|path, _| !path.starts_with(BACK));
        tree.fire(BACK);
    }

    fn with(&mut self, change: fn(&mut Recorder)) {
        (self.manager)(&mut |driver| change(driver));
    }

    fn happens(&mut self, event: fn() -> Event) {
        (self.manager)(&mut |driver| driver.events.push(event()));
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.work(), ["offer /disk"]);
        bench.front("event-channel", "9");
        bench.front("state", "3");
        assert_eq!(bench.work(), ["connect 9"]);
        assert_eq!(bench.back("state").as_deref(), Some("4"));
        bench
    }
}

const DEVICE: DeviceId = DeviceId {
    domid: 3,
    number: 1,
};

#[test]
fn a_device_is_offered_connected_and_closed() {
    let mut bench = Bench::new();
    assert_eq!(bench.work(), ["offer /disk"]);
    assert_eq!(bench.back("state").as_deref(), Some("2"));
    assert_eq!(bench.back("feature").as_deref(), Some("1"));
    bench.front("event-channel", "9");
    bench.front("state", "3");
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.back("sectors").as_deref(), Some("8"));
    bench.front("state", "4");
    assert!(bench.work().is_empty());
    bench.front("state", "6");
    assert_eq!(bench.work(), ["disconnect"]);
    assert_eq!(bench.back("state").as_deref(), Some("6"));
}

#[test]
fn a_removed_device_is_let_go_of() {
    let mut bench = Bench::connected();
    bench.removed();
    assert_eq!(bench.work(), ["disconnect"]);
    assert_eq!(bench.tree.lock().expect("one thread").watches.len(), 1);
}

#[test]
fn a_guests_nonsense_closes_its_device_and_names_it() {
    let mut bench = Bench::new();
    bench.work();
    bench.front("event-channel", "-1");
    bench.front("state", "3");
    assert!(bench.work().is_empty());
    assert_eq!(bench.back("state").as_deref(), Some("6"));
    let error = bench.back("error").expect("a reason");
    assert!(
        error.contains("guest is to blame: event-channel"),
        "{error}"
    );
    // It stays closed until the guest begins anew.
    bench.front("state", "4");
    assert!(bench.work().is_empty());
    bench.front("state", "1");
    assert_eq!(bench.work(), ["offer /disk"]);
}

#[test]
fn a_lost_worker_is_replaced_without_a_word_to_the_guest() {
    let mut bench = Bench::connected();
    bench.front("state", "4");
    bench.set(&format!("{BACK}/sectors"), "untouched");
    bench.happens(|| Event::Lost(DEVICE));
    assert!(bench.work().is_empty(), "not at once again and again");
    std::thread::sleep(PAUSE);
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.back("sectors").as_deref(), Some("untouched"));
}

#[test]
fn a_new_manager_takes_up_what_is_connected() {
    let mut first = Bench::connected();
    first.front("state", "4");
    assert_eq!(first.another().work(), ["connect 9"]);
}

#[test]
fn a_lost_store_is_found_again() {
    let mut bench = Bench::connected();
    bench.tree.lock().expect("one thread").broken = true;
    bench.front("state", "6");
    assert!(bench.work().is_empty());
    {
        let mut tree = bench.tree.lock().expect("one thread");
        tree.broken = false;
        tree.watches.clear();
        tree.events.clear();
    }
    std::thread::sleep(RECONNECT);
    assert_eq!(bench.work(), ["disconnect"]);
    assert_eq!(bench.back("state").as_deref(), Some("6"));
}

#[test]
fn a_failed_device_is_closed() {
    let mut bench = Bench::connected();
    bench.happens(|| Event::Failed(DEVICE, Failure::Guest("a lie".to_owned())));
    assert!(bench.work().is_empty());
    assert_eq!(bench.back("state").as_deref(), Some("6"));
}

/// A guest whose disk is in use says that it closes it and goes on, and so does what serves it.
#[test]
fn who_closes_is_served_until_it_has() {
    let mut bench = Bench::connected();
    bench.journal(1);
    bench.front("state", "5");
    assert!(bench.work().is_empty());
    assert_eq!(bench.back("state").as_deref(), Some("5"));
    bench.happens(|| Event::Lost(DEVICE));
    std::thread::sleep(PAUSE);
    assert_eq!(bench.work(), ["connect 9"]);
    let mut bench = bench.another();
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.journal(2), 1);
    bench.front("state", "6");
    assert_eq!(bench.work(), ["disconnect"]);
    assert_eq!(bench.back("state").as_deref(), Some("6"));
    assert!(!bench.has_journal());
}

/// The storage does not answer: whoever waits for it, it is not the manager.
#[test]
fn what_takes_long_to_end_is_waited_for_by_its_own_device_only() {
    let mut bench = Bench::connected();
    bench.with(|driver| driver.slow = true);
    bench.front("state", "6");
    assert_eq!(bench.work(), ["disconnect"]);
    assert_eq!(bench.back("state").as_deref(), Some("4"), "not closed yet");
    // The tools remove it and make it again for another front end.
    bench.removed();
    let front = "/local/domain/3/device/new/1";
    for (path, value) in [
        (format!("{BACK}/frontend"), front),
        (format!("{BACK}/online"), "1"),
        (format!("{BACK}/params"), "/new"),
        (format!("{front}/state"), "1"),
        (format!("{BACK}/state"), "1"),
    ] {
        bench.set(&path, value);
    }
    assert!(bench.work().is_empty());
    bench.happens(|| Event::Ended(DEVICE));
    assert_eq!(bench.work(), ["offer /new"]);
    bench.set(&format!("{front}/event-channel"), "7");
    bench.set(&format!("{front}/state"), "3");
    std::thread::sleep(PAUSE);
    assert_eq!(bench.work(), ["connect 7"]);
}

/// Workers and managers come and go, the rings stay: so does their journal.
#[test]
fn a_device_that_is_taken_up_again_has_its_journal() {
    let mut bench = Bench::connected();
    bench.front("state", "4");
    assert_eq!(bench.journal(1), 0);
    bench.happens(|| Event::Lost(DEVICE));
    std::thread::sleep(PAUSE);
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.journal(2), 1);
    let mut bench = bench.another();
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.journal(3), 2);
    // The manager may be killed before it has said that it is connected.
    bench.set(&format!("{BACK}/state"), "2");
    let mut bench = bench.another();
    assert_eq!(bench.work(), ["connect 9"]);
    assert_eq!(bench.journal(4), 3);
}

/// A front end that closed, began anew, was to blame or went: what comes then is another ring.
#[test]
fn rings_that_are_given_up_take_their_journal_along() {
    let ends: [fn(&mut Bench); 4] = [
        |bench| bench.front("state", "6"),
        |bench| bench.front("state", "1"),
        |bench| bench.happens(|| Event::Failed(DEVICE, Failure::Guest("a lie".to_owned()))),
        Bench::removed,
    ];
    for end in ends {
        let mut bench = Bench::connected();
        bench.front("state", "4");
        bench.journal(1);
        end(&mut bench);
        bench.work();
        assert!(!bench.has_journal());
    }
}

/// The same while there is no manager to see it.
#[test]
fn a_new_manager_removes_journals_of_rings_that_are_gone() {
    let ends: [fn(&mut Bench); 3] = [
        |bench| bench.front("state", "6"),
        |bench| bench.front("state", "1"),
        Bench::removed,
    ];
    for end in ends {
        let mut bench = Bench::connected();
        bench.front("state", "4");
        bench.journal(1);
        end(&mut bench);
        let mut bench = bench.another();
        bench.work();
        assert!(!bench.has_journal());
    }
}
