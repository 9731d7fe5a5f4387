use super::*;
use crate::store::Change;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tempfile::TempDir;

use crate::ring::guest;

/// Hypervisor and store in one, seen by the test and by the daemon.
#[derive(Default)]
struct World {
    keys: BTreeMap<u16, Keys>,
    watched: BTreeSet<u16>,
    changes: VecDeque<Change>,
    ttys: BTreeMap<u16, String>,
    pending: VecDeque<u32>,
    bound: BTreeSet<u32>,
    masked: BTreeSet<u32>,
    notified: Vec<u32>,
    store_is_down: bool,
    is_repaired: bool,
}

#[derive(Clone)]
struct Handle {
    world: Rc<RefCell<World>>,
    /// The reading end of a pipe that nobody writes to.
    quiet: Rc<(OwnedFd, OwnedFd)>,
}

impl Handle {
    fn send(&self, port: u32) {
        let mut world = self.world.borrow_mut();
        if world.masked.insert(port) {
            world.pending.push_back(port);
        }
    }

    fn broken(&self) -> io::Result<()> {
        match self.world.borrow().store_is_down {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

impl Host for Handle {
    type Page = guest::Memory;

    fn map(&self, domid: u16) -> io::Result<guest::Memory> {
        match domid {
            13 if !self.world.borrow().is_repaired => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(guest::page()),
        }
    }

    fn bind(&self, domid: u16, port: u32) -> io::Result<u32> {
        let port = u32::from(domid) * 100 + port;
        assert!(self.world.borrow_mut().bound.insert(port));
        Ok(port)
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        assert!(self.world.borrow_mut().bound.remove(&port));
        Ok(())
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        self.world.borrow_mut().notified.push(port);
        Ok(())
    }

    fn unmask(&self, port: u32) -> io::Result<()> {
        self.world.borrow_mut().masked.remove(&port);
        Ok(())
    }

    fn pending(&self) -> io::Result<u32> {
        let port = self.world.borrow_mut().pending.pop_front();
        port.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.quiet.0.as_fd()
    }
}

impl Store for Handle {
    fn domains(&mut self) -> io::Result<Vec<u16>> {
        self.broken()?;
        Ok(self.world.borrow().keys.keys().copied().collect())
    }

    fn console(&mut self, domid: u16) -> io::Result<Option<Keys>> {
        self.broken()?;
        Ok(self.world.borrow().keys.get(&domid).cloned())
    }

    fn watch(&mut self, domid: u16) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.watched.insert(domid);
        world.changes.push_back(Change::Console(domid));
        Ok(())
    }

    fn unwatch(&mut self, domid: u16) -> io::Result<()> {
        self.world.borrow_mut().watched.remove(&domid);
        Ok(())
    }

    fn publish(&mut self, domid: u16, tty: &str) -> io::Result<()> {
        self.world.borrow_mut().ttys.insert(domid, tty.to_owned());
        Ok(())
    }

    fn change(&mut self) -> io::Result<Option<Change>> {
        self.broken()?;
        Ok(self.world.borrow_mut().changes.pop_front())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.quiet.0.as_fd()
    }
}

struct Test<C: FnMut() -> io::Result<Handle>> {
    handle: Handle,
    daemon: Daemon<Handle, Handle, C>,
    logs: TempDir,
}

fn start() -> Test<impl FnMut() -> io::Result<Handle>> {
    let handle = Handle {
        world: Rc::default(),
        quiet: Rc::new(rustix::pipe::pipe().expect("a pipe")),
    };
    let logs = TempDir::new().expect("a directory");
    let settings = Logs {
        directory: logs.path().to_owned(),
        limit: 1 << 20,
    };
    let store = handle.clone();
    let connect = move || {
        store.broken()?;
        store.world.borrow_mut().changes.push_back(Change::Domains);
        Ok(store.clone())
    };
    Test {
        daemon: Daemon::new(handle.clone(), settings, connect),
        handle,
        logs,
    }
}

impl<C: FnMut() -> io::Result<Handle>> Test<C> {
    fn turn(&mut self) {
        for _ in 0..3 {
            self.daemon.turn(Some(Duration::ZERO)).expect("a turn");
        }
    }

    fn introduce(&mut self, domid: u16) {
        let keys = Keys {
            name: format!("g{domid}"),
            gfn: 0xF_EFFF,
            port: 2,
        };
        let mut world = self.handle.world.borrow_mut();
        world.keys.insert(domid, keys);
        world.changes.push_back(Change::Domains);
        drop(world);
        self.turn();
    }

    fn write(&mut self, domid: u16, text: &[u8]) {
        guest::write(self.daemon.guests[&domid].console.ring(), text);
        self.handle.send(u32::from(domid) * 100 + 2);
        self.turn();
    }

    fn log(&self, domid: u16) -> String {
        let path = self.logs.path().join(format!("guest-g{domid}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

#[test]
fn guests_come_write_and_go() {
    let mut test = start();
    test.introduce(1);
    test.introduce(2);
    assert!(test.handle.world.borrow().ttys[&2].starts_with("/dev/pts/"));
    test.write(1, b"one");
    test.write(2, b"two");
    assert_eq!((test.log(1), test.log(2)), ("one".into(), "two".into()));
    assert_eq!(test.handle.world.borrow().notified, [102, 202]);
    // Last words are written without an event.
    guest::write(test.daemon.guests[&1].console.ring(), b" end");
    let mut world = test.handle.world.borrow_mut();
    world.keys.remove(&1);
    world.changes.push_back(Change::Domains);
    drop(world);
    test.turn();
    assert_eq!(test.log(1), "one end");
    let world = test.handle.world.borrow();
    assert_eq!(world.bound, BTreeSet::from([202]));
    assert_eq!(world.watched, BTreeSet::from([2]));
}

#[test]
fn a_hostile_guest_loses_its_console_and_no_other_does() {
    let mut test = start();
    test.introduce(1);
    test.introduce(2);
    guest::set_out_prod(test.daemon.guests[&1].console.ring(), 1 << 30);
    test.handle.send(102);
    test.turn();
    test.write(2, b"well");
    assert_eq!(test.log(2), "well");
    assert_eq!(test.handle.world.borrow().bound, BTreeSet::from([202]));
}

#[test]
fn a_flood_leaves_the_port_masked_for_a_while() {
    let mut test = start();
    test.introduce(1);
    test.introduce(2);
    test.write(1, b"first");
    assert!(!test.handle.world.borrow().masked.contains(&102));
    let guest = test.daemon.guests.get_mut(&1).expect("it is open");
    guest.console.charge(1 << 30, Instant::now());
    test.write(1, b"more");
    assert!(test.handle.world.borrow().masked.contains(&102));
    assert_eq!(test.log(1), "first");
    test.write(2, b"calm");
    assert_eq!(test.log(2), "calm");
}

#[test]
fn a_restarted_xenstored_finds_the_consoles_again() {
    let mut test = start();
    test.introduce(1);
    test.handle.world.borrow_mut().store_is_down = true;
    test.turn();
    test.write(1, b"still here");
    assert_eq!(test.log(1), "still here");
    let mut world = test.handle.world.borrow_mut();
    world.store_is_down = false;
    world.ttys.clear();
    world.changes.clear();
    drop(world);
    test.daemon.retry_at = Instant::now();
    test.turn();
    assert!(test.handle.world.borrow().ttys.contains_key(&1));
    assert_eq!(test.daemon.guests.len(), 1);
}

#[test]
fn a_console_that_cannot_be_opened_holds_up_no_other() {
    let mut test = start();
    test.introduce(13);
    test.introduce(2);
    test.write(2, b"fine");
    assert_eq!(test.log(2), "fine");
    assert!(!test.daemon.guests.contains_key(&13));
    test.handle.world.borrow_mut().is_repaired = true;
    test.introduce(3);
    test.write(13, b"late");
    assert_eq!(test.log(13), "late");
}
