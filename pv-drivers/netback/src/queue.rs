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

/// The event for what the guest has sent, which only lets it reuse its pages.
///
/// Where the guest has just been given something, it is woken anyway, and looks at its own ring by itself when it answers. So the event
/// is put off for the moment for which the answer is looked for: that mostly spares this domain a call of the hypervisor before the
/// guest gets its packet, and the guest an interrupt.
#[derive(Debug, Default)]
pub struct PutOff {
    /// Turns that it may still wait; 0 if there is none.
    turns: u8,
}

impl PutOff {
    /// Turns that it may wait: that of its packets, and the one that finds no more of what is for the guest.
    const TURNS: u8 = 2;

    /// Puts an event off. One that was put off before is the past: the guest has asked for this one since.
    const fn begin(&mut self) {
        self.turns = Self::TURNS;
    }

    /// Another turn has passed. True: it is time to send it, if there is one.
    const fn pass(&mut self) -> bool {
        let last = self.turns == 1;
        self.turns = self.turns.saturating_sub(1);
        last
    }

    /// Ends it; whether there was one.
    const fn end(&mut self) -> bool {
        core::mem::replace(&mut self.turns, 0) > 0
    }
}

/// Others of this domain go first for a while.
///
/// What a guest has sent to another guest is in the hands of that one's queue, which may have been at work as this one was woken, and then
/// waits for this CPU while this one looks for an answer in vain, sends events and goes to sleep. That it is so is seen by such a look. It
/// is of no use where the guests share the CPU too, and so wait for that sleep themselves: there, looks for their answers are in vain as well.
#[derive(Debug, Default)]
pub struct Courtesy {
    /// How often they still do.
    times: u8,
}

impl Courtesy {
    /// How often others go first until there is another look, in case that it was a guest's slowness.
    const TIMES: u8 = 63;

    const fn begin(&mut self) {
        self.times = Self::TIMES;
    }

    const fn is_due(&mut self) -> bool {
        let due = self.times > 0;
        self.times = self.times.saturating_sub(1);
        due
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_first_until_the_next_look() {
        let mut courtesy = Courtesy::default();
        assert!(!courtesy.is_due());
        courtesy.begin();
        assert!((0..63).all(|_| courtesy.is_due()));
        assert!(!courtesy.is_due());
    }

    #[test]
    fn an_event_is_put_off_for_a_few_turns_only() {
        let mut put_off = PutOff::default();
        assert!(!put_off.pass() && !put_off.end());
        put_off.begin();
        assert_eq!(
            [(); 4].map(|()| put_off.pass()),
            [false, true, false, false]
        );
        put_off.begin();
        put_off.pass();
        put_off.begin();
        assert!(!put_off.pass() && put_off.end() && !put_off.end());
    }
}
