//! The requests of one ring, in order.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;
use oxen_backend::Failure;
use oxen_blkif::{Body, Reason, Request, Segment, Status, Wrong, segments};

use crate::buffer::Pool;
use crate::guest::{CopyFault, Guest, Piece, Side};
use crate::image::Geometry;
use crate::job::{Job, Stage};
use crate::ring::DiskRing;

/// Complaints about a guest's requests that are logged; there may be millions of the same.
const COMPLAINTS: u32 = 10;

/// Requests that are taken at once. What is taken together is mostly answered together: with fewer at a time the guest has answers to
/// deal with while the next ones are served.
const BATCH: usize = 8;

/// A ring and the requests that were taken and not answered.
#[derive(Debug)]
pub struct Queue<M, J> {
    ring: DiskRing<M, J>,
    jobs: VecDeque<Job>,
    /// Number of the first of them, counted from the first ever.
    first: u64,
    /// Number of the first that was not begun.
    next: u64,
    /// There may be requests in the ring.
    pub awake: bool,
    /// Barriers among the jobs.
    barriers: usize,
    complaints: u32,
}

/// A request whose segments are elsewhere comes in two parts.
enum Taken {
    Whole(Job),
    /// Bytes of its segments in each of the guest's pages.
    Indirect(Request, Vec<(u32, Vec<u8>)>),
}

impl<M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Queue<M, J> {
    /// Over a ring.
    pub const fn new(ring: DiskRing<M, J>) -> Self {
        Self {
            ring,
            jobs: VecDeque::new(),
            first: 0,
            next: 0,
            awake: true,
            barriers: 0,
            complaints: 0,
        }
    }

    /// Whether there are requests in the ring, of which the guest need not have sent an event.
    pub fn stirs(&self) -> bool {
        self.ring.stirs()
    }

    /// Asks the guest for no event until [`Self::sleep`].
    pub fn stay_awake(&self) {
        self.ring.stay_awake();
    }

    /// Asks the guest for an event at its next request; where that is in the ring already the queue is awake again.
    ///
    /// # Errors
    /// The guest breaks the protocol.
    pub fn sleep(&mut self) -> Result<(), Failure> {
        self.awake = self.ring.sleep().map_err(by_guest)?;
        Ok(())
    }

    /// Takes requests from the ring while there is room, a few at a time. Where it takes the last one the guest is not asked for an event yet.
    ///
    /// # Errors
    /// The guest breaks the protocol.
    pub fn take(
        &mut self,
        guest: &mut impl Guest,
        pool: &mut Pool,
        disk: &Geometry,
    ) -> Result<(), Failure> {
        let mut taken = ArrayVec::<_, BATCH>::new();
        while !taken.is_full() && pool.has_room() {
            match self.ring.take().map_err(by_guest)? {
                None => {
                    self.awake = false;
                    break;
                }
                Some(request) => taken.push(self.plan(request, pool, disk)?),
            }
        }
        let pages = taken.iter_mut().flat_map(|one| match one {
            Taken::Whole(_) => &mut [][..],
            Taken::Indirect(_, pages) => &mut pages[..],
        });
        let pieces = pages.map(|(reference, bytes)| Piece {
            reference: *reference,
            offset: 0,
            side: Side::In(bytes),
        });
        copy(guest, pieces)?;
        for one in taken {
            let job = match one {
                Taken::Whole(job) => job,
                Taken::Indirect(request, pages) => {
                    let list = segments_of(&request, &pages)?;
                    self.data(request, list, pool, disk)
                }
            };
            self.barriers += usize::from(job.barrier);
            self.jobs.push_back(job);
        }
        Ok(())
    }

    fn plan(
        &mut self,
        request: Result<Request, Wrong>,
        pool: &mut Pool,
        disk: &Geometry,
    ) -> Result<Taken, Failure> {
        let request = match request {
            Ok(request) => request,
            // A newer front end may try what an older back end does not know.
            Err(wrong) if wrong.reason == Reason::Operation => {
                self.complain(&wrong.to_string());
                return Ok(Taken::Whole(Job::refused(&wrong, Status::NotSupported)));
            }
            Err(wrong) => return Err(by_guest(wrong)),
        };
        Ok(match &request.body {
            Body::Direct { segments, .. } => {
                let list = segments.to_vec();
                Taken::Whole(self.data(request, list, pool, disk))
            }
            Body::Discard { .. } => Taken::Whole(self.data(request, Vec::new(), pool, disk)),
            Body::Indirect { count, pages, .. } => {
                let mut left = usize::from(*count) * 8;
                let pages = pages.iter().map(|reference| {
                    let bytes = left.min(4096);
                    left -= bytes;
                    (*reference, vec![0; bytes])
                });
                let pages = pages.collect();
                Taken::Indirect(request, pages)
            }
        })
    }

    fn data(
        &mut self,
        request: Request,
        list: Vec<Segment>,
        pool: &mut Pool,
        disk: &Geometry,
    ) -> Job {
        let (mut job, complaint) = Job::plan(&request, list, disk);
        if let Some(complaint) = complaint {
            self.complain(&complaint);
        }
        if job.length() > 0 {
            job.buffer = Some(pool.take(job.length()));
        }
        job
    }

    fn complain(&mut self, complaint: &str) {
        self.complaints += 1;
        match self.complaints {
            ..COMPLAINTS => log::warn!("the guest asks for {complaint}"),
            COMPLAINTS => log::warn!("the guest asks for {complaint}; more of it is not logged"),
            _ => {}
        }
    }

    /// Jobs to be begun now, by number, with the guest's data in their buffers.
    ///
    /// # Errors
    /// The guest's pages cannot be copied.
    pub fn begin(&mut self, guest: &mut impl Guest) -> Result<std::ops::Range<u64>, Failure> {
        let from = self.next;
        while let Some(job) = self.jobs.get(self.place(self.next)) {
            let before = self.jobs.range(..self.place(self.next));
            // What was read is off the disk, and waits for nothing but the copy.
            let mut running = before.filter(|job| !matches!(job.stage, Stage::Read | Stage::Done));
            let held = if self.barriers == 0 {
                false
            } else if job.barrier {
                running.next().is_some()
            } else {
                running.any(|job| job.barrier)
            };
            if held {
                break;
            }
            self.next += 1;
        }
        let range = self.place(from)..self.place(self.next);
        let jobs = self.jobs.range_mut(range);
        let pieces = jobs
            .filter(|job| job.stage == Stage::Waiting && job.wants_data())
            .flat_map(|job| job.pieces());
        copy(guest, pieces)?;
        Ok(from..self.next)
    }

    /// A job that was taken and not answered.
    pub fn job(&mut self, number: u64) -> Option<&mut Job> {
        let place = self.place(number);
        self.jobs.get_mut(place)
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Gives the guest what was read, and the answers that are due. True: it is to be sent an event.
    ///
    /// # Errors
    /// The guest's pages cannot be copied.
    pub fn answer(&mut self, guest: &mut impl Guest, pool: &mut Pool) -> Result<bool, Failure> {
        let read = self.jobs.iter_mut().filter(|job| job.stage == Stage::Read);
        let pieces = read.flat_map(|job| {
            job.stage = Stage::Done;
            job.pieces()
        });
        copy(guest, pieces)?;
        while let Some(job) = self.jobs.pop_front_if(|job| job.stage == Stage::Done) {
            self.first += 1;
            self.barriers -= usize::from(job.barrier);
            if let Some(buffer) = job.buffer {
                pool.give(buffer);
            }
            let answered = self.ring.respond(&job.response);
            answered.map_err(|error| Failure::Host(error.to_string()))?;
        }
        self.next = self.next.max(self.first);
        Ok(self.ring.publish())
    }
}

fn segments_of(request: &Request, pages: &[(u32, Vec<u8>)]) -> Result<Vec<Segment>, Failure> {
    let mut list = Vec::with_capacity(pages.iter().map(|(_, bytes)| bytes.len() / 8).sum());
    for segment in pages.iter().flat_map(|(_, bytes)| segments(bytes)) {
        list.push(segment.map_err(|reason| {
            by_guest(Wrong {
                id: request.id,
                operation: request.operation(),
                reason,
            })
        })?);
    }
    Ok(list)
}

fn by_guest(what: impl ToString) -> Failure {
    Failure::Guest(what.to_string())
}

fn copy<'a>(
    guest: &mut impl Guest,
    pieces: impl Iterator<Item = Piece<'a>>,
) -> Result<(), Failure> {
    guest.copy(pieces).map_err(|fault| match fault {
        CopyFault::Refused { .. } => by_guest(fault),
        CopyFault::Ended | CopyFault::Device(_) => Failure::Host(fault.to_string()),
    })
}
