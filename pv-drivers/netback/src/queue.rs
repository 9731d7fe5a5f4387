//! A pair of rings with their queue of the interface: one thread.

use std::io;
use std::mem::take;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oxen_backend::{Failure, Linger};
use oxen_netif::PAGE;
use oxen_ring::journal_words;
use oxen_xen::evtchn::EventChannels;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::sched_yield;

use crate::credit::Credit;
use crate::machine::{Interface, Pages};
use crate::manners::{Courtesy, PutOff};
use crate::receive::{self, End, Receive};
use crate::transmit::{self, Transmit};

/// How often the ring of a guest that never tells is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Parts of packets at most that are a request or an answer rather than a stream.
const LITTLE: usize = 2;

/// The ports of a queue, bound to the guest's.
#[derive(Debug)]
pub struct Ports {
    /// The device.
    pub events: EventChannels,
    /// Tells of sent packets.
    pub transmit: u32,
    /// Tells of received packets. May be the same.
    pub receive: u32,
}

/// Words of the journal of a ring, which is a page.
pub const fn journal(request: usize, response: usize) -> usize {
    match journal_words(PAGE / 4, request, response) {
        Some(words) => words,
        None => panic!("an entry fits into a page"),
    }
}

/// A queue.
#[derive(Debug)]
pub struct Queue<M, J, P, I> {
    /// From the guest.
    pub transmit: Transmit<M, J>,
    /// To the guest.
    pub receive: Receive<M, J>,
    /// The guest's pages.
    pub pages: P,
    /// The interface.
    pub interface: I,
    /// Ways to the guest.
    pub ports: Ports,
    /// What the guest may send, where that is limited; all its queues share it.
    pub credit: Option<Arc<Mutex<Credit>>>,
    /// Whether the guest tells when it has given pages.
    pub tells: bool,
    /// Whether to look for the guest's answer.
    pub linger: Linger,
    /// The guest was given packets, and its answer was not looked for yet.
    pub gave: bool,
    /// An event that it may not need.
    pub put_off: PutOff,
    /// Whether others go first where it has sent little.
    pub courtesy: Courtesy,
}

/// What there is to wait for.
struct Wait {
    /// Packets on the interface.
    packets: bool,
    until: Option<Instant>,
}

impl<M, J, P, I> Queue<M, J, P, I>
where
    M: AsRef<[AtomicU32]>,
    J: AsRef<[AtomicU32]>,
    P: Pages,
    I: Interface + AsFd,
{
    /// Serves until that is not possible any more, and says why.
    pub fn serve(mut self) -> Failure {
        let mut arrived = true;
        loop {
            arrived = match self.turn(arrived) {
                Ok(None) => true,
                Ok(Some(wait)) => match self.wait(&wait) {
                    Ok(arrived) => arrived,
                    Err(error) => {
                        return Failure::Host(format!("events cannot be waited for: {error}"));
                    }
                },
                Err(failure) => return failure,
            };
        }
    }

    /// One turn of both directions, of that to the guest if packets may have `arrived`; what to wait for if there was nothing to do.
    fn turn(&mut self, arrived: bool) -> Result<Option<Wait>, Failure> {
        let mut no_credit = None;
        let credit = self.credit.as_deref();
        let sent = self.transmit.turn(
            &mut self.pages,
            &mut self.interface,
            || {
                no_credit = credit.and_then(|credit| locked(credit, |c| c.wait(Instant::now())));
                no_credit.is_none()
            },
            |size| {
                if let Some(credit) = credit {
                    locked(credit, |credit| credit.spend(size));
                }
            },
        )?;
        // What is sent may be answered at once: a program of this domain that it wakes runs before this thread goes on.
        let is_little = (1..=LITTLE).contains(&sent.parts);
        let yields = is_little && self.linger.is_ready() && self.courtesy.is_due();
        if yields {
            sched_yield();
        }
        let received = if arrived || sent.packets > 0 || self.receive.waits() {
            self.receive.turn(&mut self.pages, &mut self.interface)?
        } else {
            receive::Turn::default()
        };
        if is_little && !yields && received.packets == 0 {
            self.courtesy.begin();
        }
        self.tell(&sent, &received)?;
        self.gave |= received.packets > 0;
        if sent.full || received.end == End::Busy {
            return Ok(None);
        }
        let starved = received.end == End::Starved;
        if take(&mut self.gave) && no_credit.is_none() && self.linger.is_due() {
            self.transmit.stay_awake();
            if self.linger.look(|| self.transmit.stirs()) {
                return Ok(None);
            }
        }
        if self.put_off.end() {
            self.make_up()?;
        }
        // What has come since is seen here, or waited for.
        if (no_credit.is_none() && self.transmit.sleep()?) || (starved && self.receive.sleep()?) {
            return Ok(None);
        }
        let look = (starved && !self.tells).then(|| Instant::now() + LOOK_AGAIN);
        Ok(Some(Wait {
            packets: !starved,
            until: [no_credit, look].into_iter().flatten().min(),
        }))
    }

    /// Sends the guest its events, or puts that for what it has sent off.
    fn tell(&mut self, sent: &transmit::Turn, received: &receive::Turn) -> Result<(), Failure> {
        let Ports {
            transmit, receive, ..
        } = self.ports;
        if received.notify {
            self.send(receive)?;
            // It looks at both rings then.
            if transmit == receive {
                self.put_off.end();
                return Ok(());
            }
        }
        if !sent.notify {
            if self.put_off.pass() {
                self.make_up()?;
            }
        } else if sent.parts <= LITTLE && received.packets == 1 && self.linger.is_ready() {
            self.put_off.begin();
        } else {
            self.put_off.end();
            self.send(transmit)?;
        }
        Ok(())
    }

    /// Sends an event that was put off, if the guest still waits for it.
    fn make_up(&self) -> Result<(), Failure> {
        if self.transmit.is_awaited() {
            self.send(self.ports.transmit)?;
        }
        Ok(())
    }

    fn send(&self, port: u32) -> Result<(), Failure> {
        (self.ports.events.notify(port))
            .map_err(|error| Failure::Host(format!("event to the guest: {error}")))
    }

    /// Waits. Whether packets have arrived then, where that was looked for.
    fn wait(&self, wait: &Wait) -> io::Result<bool> {
        let timeout = wait
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let events = PollFd::new(&self.ports.events, PollFlags::IN);
        let packets = PollFd::new(&self.interface, PollFlags::IN);
        let mut both = [events, packets];
        let count = if wait.packets { 2 } else { 1 };
        match poll(&mut both[..count], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Let in again before the rings are looked at: an event that comes after that look is then seen.
        if !both[0].revents().is_empty() {
            self.ports.events.take(|_| {})?;
        }
        Ok(!both[1].revents().is_empty())
    }
}

fn locked<T>(credit: &Mutex<Credit>, operation: impl FnOnce(&mut Credit) -> T) -> T {
    operation(&mut credit.lock().unwrap_or_else(PoisonError::into_inner))
}
