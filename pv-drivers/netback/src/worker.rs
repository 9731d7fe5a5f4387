//! The process that serves one network card.
//!
//! It begins with root's rights, opens the devices and the interface, and gives all rights up before it looks at anything that the guest
//! has written.

use std::io::{self, Read};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use oxen_backend::{DeviceId, Failure, Journal, Journals, Linger};
use oxen_daemon::confine::seal;
use oxen_xen::evtchn::EventChannels;
use oxen_xen::gntalloc::OwnGrants;
use oxen_xen::gntdev::{GrantMapping, Grants};

use crate::arena::Arena;
use crate::credit::Credit;
use crate::drops::Drops;
use crate::job::{Events, Job};
use crate::machine::GuestPages;
use crate::manners::{Courtesy, PutOff};
use crate::queue::{Ports, Queue};
use crate::receive::{self, Receive};
use crate::tap;
use crate::transmit::{self, Transmit};

/// Where the journals of all cards' rings are.
pub const JOURNALS: &str = "/run/oxen/oxnet";
/// How long an earlier worker of the same card may take to go: it ends when its manager does.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);
/// System calls beyond those of any worker: packets, waiting, threads.
const CALLS: &[i64] = &[
    libc::SYS_writev,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
];

type Served = Queue<GrantMapping, Journal, GuestPages, tap::Queue>;

/// Serves until that is not possible any more, and says why. The whole process ends when its standard input does.
pub fn run(job: &Job) -> Failure {
    match prepare(job) {
        Ok(queues) => serve(queues),
        Err(failure) => failure,
    }
}

fn end_with_manager() {
    let mut byte = [0];
    loop {
        match io::stdin().read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It writes nothing.
            _ => std::process::exit(0),
        }
    }
}

fn prepare(job: &Job) -> Result<Vec<Served>, Failure> {
    let name = &job.interface;
    let of_interface = |error| Failure::Host(format!("interface {name}: {error}"));
    // The interface is the earlier worker's as long as that is there, and so are the rings.
    let busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    let taps =
        patiently(busy, || tap::create(name, job.queues.len(), job.guest)).map_err(of_interface)?;
    let opened = |error: io::Error| Failure::Host(error.to_string());
    let mut devices = Vec::new();
    for _ in &job.queues {
        devices.push((
            Grants::open().map_err(opened)?,
            EventChannels::open().map_err(opened)?,
            memory(),
        ));
    }
    // Not before the interface is ours: the earlier worker is gone with it.
    let journals = journals(job).map_err(opened)?;
    // A port of the bridge from here on: what arrives waits in the queues.
    tap::join(name, job.bridge.as_deref(), job.mtu).map_err(of_interface)?;
    seal(CALLS).map_err(|error| Failure::Host(format!("rights cannot be given up: {error}")))?;
    // Not before: rights are a thread's own.
    thread::spawn(end_with_manager);
    let credit = (job.rate).map(|rate| Arc::new(Mutex::new(Credit::new(rate, Instant::now()))));
    let parts = job.queues.iter().zip(devices).zip(taps).zip(journals);
    let queues = parts.map(
        |(((queue, (grants, events, (memory, named))), interface), journals)| {
            let map = |page: u32| {
                (grants.map(job.domid, &[page])).map_err(|error| {
                    Failure::Guest(format!("its ring's page {page} cannot be mapped: {error}"))
                })
            };
            let small = |error| Failure::Host(format!("ring: {error}"));
            let own = job.filter.then_some(job.mac);
            let drops = || Drops::new(format!("domain {}, interface {name}", job.domid));
            let memory = memory.split(transmit::PAGES);
            Ok(Queue {
                transmit: Transmit::attach(
                    map(queue.transmit)?,
                    journals.0,
                    own,
                    drops(),
                    memory.0,
                )
                .map_err(small)?,
                receive: Receive::attach(
                    map(queue.receive)?,
                    journals.1,
                    job.guest,
                    drops(),
                    memory.1,
                )
                .map_err(small)?,
                ports: bind(events, job.domid, queue.events)?,
                pages: GuestPages::new(grants, job.domid, named.map(Arc::new)),
                interface,
                credit: credit.clone(),
                tells: job.guest.tells,
                linger: Linger::default(),
                gave: false,
                put_off: PutOff::default(),
                courtesy: Courtesy::default(),
            })
        },
    );
    queues.collect()
}

/// For a queue's packets, named by grants if that can be.
fn memory() -> (Arena, Option<OwnGrants>) {
    let pages = transmit::PAGES + receive::PAGES;
    match Arena::granted(pages) {
        Ok((memory, grants)) => (memory, Some(grants)),
        Err(error) => {
            log::info!(
                "copies take longer, for there is no memory that is named by grants: {error}"
            );
            (Arena::new(pages), None)
        }
    }
}

/// The journals of each queue: of the ring on which the guest sends, and of the one on which it receives.
fn journals(job: &Job) -> io::Result<Vec<(Journal, Journal)>> {
    let device = DeviceId {
        domid: job.domid,
        number: job.number,
    };
    let rings = serde_json::to_string(&job.queues)?;
    let words = [transmit::JOURNAL, receive::JOURNAL].repeat(job.queues.len());
    let mut journals = (Journals::new(JOURNALS).open(device, &rings, &words)?).into_iter();
    let pairs = std::iter::from_fn(|| journals.next().zip(journals.next()));
    Ok(pairs.collect())
}

fn bind(events: EventChannels, domid: u16, theirs: Events) -> Result<Ports, Failure> {
    let bind = |port: u32| {
        // An earlier worker's end of the channel may not be closed yet.
        patiently(|_| true, || events.bind_interdomain(domid, port)).map_err(|error| {
            Failure::Guest(format!("its event channel {port} cannot be bound: {error}"))
        })
    };
    let (transmit, receive) = match theirs {
        Events::One(port) => {
            let port = bind(port)?;
            (port, port)
        }
        Events::Split { transmit, receive } => (bind(transmit)?, bind(receive)?),
    };
    Ok(Ports {
        events,
        transmit,
        receive,
    })
}

/// Tries again while an error may pass.
pub fn patiently<T>(
    may_pass: impl Fn(&io::Error) -> bool,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if may_pass(&error) && Instant::now() < end => thread::sleep(STEP),
            result => return result,
        }
    }
}

/// Waits for the first queue that cannot go on.
fn serve(queues: Vec<Served>) -> Failure {
    let (failed, failures) = mpsc::channel();
    for queue in queues {
        let failed = failed.clone();
        thread::spawn(move || {
            // Nobody listens only when another queue has failed already.
            let _ = failed.send(queue.serve());
        });
    }
    drop(failed);
    (failures.recv()).unwrap_or_else(|_| Failure::Host("no queue is served".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::machine::Interface;
    use crate::vnet::{HEADER, Header};

    /// All that queues do works without rights. In threads: the other tests keep what they have.
    #[test]
    fn what_is_needed_is_left() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let worker = thread::spawn(|| {
            let mut tap = tap::Queue::from(std::os::fd::OwnedFd::from(ours));
            seal(CALLS).expect("the kernel lets go");
            let moment = Timespec::try_from(STEP).expect("a moment");
            let queue = thread::spawn(move || {
                let wait = |tap: &tap::Queue, time: Option<&Timespec>| {
                    poll(&mut [PollFd::new(tap, PollFlags::IN)], time).expect("waiting")
                };
                assert_eq!(wait(&tap, Some(&moment)), 0);
                rustix::thread::sched_yield();
                let mut first = [1; HEADER + 14];
                for rest in [&[][..], &[&[2; 46][..]]] {
                    (tap.send(&Header::default(), &mut first, rest)).expect("a packet");
                }
                wait(&tap, None);
                let mut buffer = vec![0; 1 << 20];
                tap.receive(&mut buffer).expect("a packet")
            });
            thread::sleep(STEP);
            queue.join().expect("it works")
        });
        let mut packet = [0; HEADER + 14];
        theirs.read_exact(&mut packet).expect("a packet");
        assert_eq!((packet[9], packet[10], packet[23]), (0, 1, 1));
        let mut packet = [0; HEADER + 60];
        theirs.read_exact(&mut packet).expect("a packet");
        assert_eq!((packet[23], packet[24], packet[69]), (1, 2, 2));
        theirs.write_all(&packet).expect("a packet");
        let received = worker.join().expect("it works");
        assert_eq!(received, Some((Header::default(), 60)));
    }
}
