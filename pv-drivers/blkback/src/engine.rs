//! The loop around io_uring: what the guest asks for is begun, what has ended is answered.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use io_uring::{IoUring, opcode, register::Restriction, squeue, types};
use oxen_backend::Failure;

use crate::buffer::Pool;
use crate::guest::Guest;
use crate::image::Image;
use crate::job::{Job, Stage, Step};
use crate::queue::Queue;

/// Entries of the submission queue: what is more goes in several parts.
const ENTRIES: u32 = 128;
/// Completions that have no job: the guest's events.
const EVENTS: u64 = u64::MAX;
/// Whoever started us is gone.
const ORPHANED: u64 = u64::MAX - 1;
/// Bits of a completion's number that are the job's; the queue is above them.
const JOB_BITS: u32 = 48;

/// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE`
const PUNCH: i32 = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;

/// What comes of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to come.
    GoOn,
    /// Whoever started us is gone: nobody needs us.
    Orphaned,
}

/// A disk that is served.
pub struct Engine<G: Guest, M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> {
    guest: G,
    image: Image,
    queues: Vec<Queue<M, J>>,
    pool: Pool,
    uring: IoUring,
    /// Steps that io_uring has.
    under_way: usize,
    /// The descriptor that ends when whoever started us does.
    parent: OwnedFd,
    /// Which of the two descriptors are waited for.
    polled: [bool; 2],
}

impl<G: Guest, M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Engine<G, M, J> {
    /// Over a disk and its guest's queues. `parent` ends when whoever started us does.
    ///
    /// # Errors
    /// The kernel has no io_uring, or has it forbidden.
    pub fn new(
        guest: G,
        image: Image,
        queues: Vec<Queue<M, J>>,
        parent: OwnedFd,
    ) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_r_disabled()
            .setup_coop_taskrun()
            .build(ENTRIES)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("io_uring: {error} (is kernel.io_uring_disabled set?)"),
                )
            })?;
        // This ring can do nothing but what a disk needs, whoever comes to hold it.
        let mut allowed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
            opcode::PollAdd::CODE,
        ]
        .map(Restriction::sqe_op);
        uring.submitter().register_restrictions(&mut allowed)?;
        uring.submitter().register_enable_rings()?;
        Ok(Self {
            guest,
            image,
            queues,
            pool: Pool::default(),
            uring,
            under_way: 0,
            parent,
            polled: [false; 2],
        })
    }

    /// Serves until whoever started us is gone.
    ///
    /// # Errors
    /// The guest breaks the protocol, or the disk cannot be served.
    pub fn run(&mut self) -> Result<(), Failure> {
        while self.turn()? == Turn::GoOn {}
        Ok(())
    }

    fn notify(&mut self, queue: usize) -> Result<(), Failure> {
        let sent = self.guest.notify(queue);
        sent.map_err(|error| Failure::Guest(format!("its event channel is gone: {error}")))
    }

    /// Waits for something to do, unless there is, and does it.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub fn turn(&mut self) -> Result<Turn, Failure> {
        self.wait().map_err(broken)?;
        if self.reap()? == Turn::Orphaned {
            return Ok(Turn::Orphaned);
        }
        for nth in 0..self.queues.len() {
            let queue = &mut self.queues[nth];
            if queue.awake {
                queue.take(&mut self.guest, &mut self.pool, &self.image.geometry)?;
            }
            loop {
                let numbers = self.queues[nth].begin(&mut self.guest)?;
                if numbers.is_empty() {
                    break;
                }
                // What is done at once lets those begin that waited for it.
                for number in numbers {
                    self.begin(nth, number).map_err(broken)?;
                }
            }
            if self.queues[nth].answer(&mut self.guest, &mut self.pool)? {
                self.notify(nth)?;
            }
        }
        Ok(Turn::GoOn)
    }

    fn wait(&mut self) -> io::Result<()> {
        let descriptors = [self.guest.descriptor().as_raw_fd(), self.parent.as_raw_fd()];
        for (nth, number) in [EVENTS, ORPHANED].into_iter().enumerate() {
            if !std::mem::replace(&mut self.polled[nth], true) {
                let fd = types::Fd(descriptors[nth]);
                let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
                self.push(poll.user_data(number))?;
            }
        }
        let has_work = self.pool.has_room() && self.queues.iter().any(|queue| queue.awake);
        match self.uring.submit_and_wait(usize::from(!has_work)) {
            Ok(_) => Ok(()),
            // A signal; or the kernel wants completions to be taken first.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what entries point to stays: descriptors are owned by `self`, buffers by jobs that stay in their queue until
            // their step has ended, and `drop` waits for all steps.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.uring.submit()?;
        }
    }

    /// Takes what has ended.
    fn reap(&mut self) -> Result<Turn, Failure> {
        let ended: Vec<(u64, i32)> = (self.uring.completion())
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        for (number, result) in ended {
            match number {
                ORPHANED => return Ok(Turn::Orphaned),
                EVENTS => {
                    self.polled[0] = false;
                    let events = self.guest.events().map_err(broken)?;
                    for queue in events {
                        self.queues[queue].awake = true;
                    }
                }
                number => {
                    self.under_way -= 1;
                    let (queue, job) = split(number);
                    self.ended(queue, job, result).map_err(broken)?;
                }
            }
        }
        Ok(Turn::GoOn)
    }

    fn ended(&mut self, queue: usize, number: u64, result: i32) -> io::Result<()> {
        let Some(job) = self.queues[queue].job(number) else {
            return Ok(());
        };
        if goes_on(job, result) {
            self.submit(queue, number)?;
        }
        Ok(())
    }

    /// Does all steps of a job on an image that io_uring cannot read.
    fn act(&mut self, queue: usize, number: u64) {
        let job = self.queues[queue].job(number);
        let (Some(image), Some(job)) = (self.image.formatted(), job) else {
            return;
        };
        while let Some(result) = image.act(job) {
            if !goes_on(job, result) {
                break;
            }
        }
    }

    fn begin(&mut self, queue: usize, number: u64) -> io::Result<()> {
        match self.queues[queue].job(number) {
            Some(job) if job.stage == Stage::Waiting => {
                job.stage = Stage::Running;
                self.submit(queue, number)
            }
            // One that was refused.
            _ => Ok(()),
        }
    }

    fn submit(&mut self, queue: usize, number: u64) -> io::Result<()> {
        let Some(descriptor) = self.image.descriptor() else {
            self.act(queue, number);
            return Ok(());
        };
        let fd = types::Fd(descriptor);
        let entry = self.queues[queue]
            .job(number)
            .and_then(|job| entry(fd, job));
        let Some(entry) = entry else {
            return Ok(());
        };
        self.under_way += 1;
        self.push(entry.user_data(joined(queue, number)))
    }
}

/// Notes how a job's step ended; whether the job has another, or that one once more.
fn goes_on(job: &mut Job, result: i32) -> bool {
    // What could not be done now can be done later.
    let again = matches!(-result, libc::EAGAIN | libc::EINTR);
    if !again && result < 0 {
        let error = io::Error::from_raw_os_error(-result);
        log::error!("the disk fails: {:?}: {error}", job.step());
    }
    again || job.stepped(result)
}

/// A job's step for io_uring.
fn entry(fd: types::Fd, job: &mut Job) -> Option<squeue::Entry> {
    let (step, offset, range) = job.step()?;
    let length = u32::try_from(range.len()).ok()?;
    Some(match step {
        Step::Sync => opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Step::Discard { bytes } => opcode::Fallocate::new(fd, bytes)
            .offset(offset)
            .mode(PUNCH)
            .build(),
        Step::Read => {
            let buffer = &mut job.buffer.as_mut()?.bytes_mut()[range];
            opcode::Read::new(fd, buffer.as_mut_ptr(), length)
                .offset(offset)
                .build()
        }
        Step::Write => {
            let buffer = &job.buffer.as_ref()?.bytes()[range];
            opcode::Write::new(fd, buffer.as_ptr(), length)
                .offset(offset)
                .build()
        }
    })
}

fn joined(queue: usize, job: u64) -> u64 {
    (queue as u64) << JOB_BITS | job & ((1 << JOB_BITS) - 1)
}

fn split(number: u64) -> (usize, u64) {
    (
        (number >> JOB_BITS) as usize,
        number & ((1 << JOB_BITS) - 1),
    )
}

fn broken(error: io::Error) -> Failure {
    Failure::Host(error.to_string())
}

impl<G: Guest, M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Drop for Engine<G, M, J> {
    /// Waits for the steps that are under way: they use the jobs' buffers.
    fn drop(&mut self) {
        while self.under_way > 0 {
            // With polls that never end on their own, steps are what ends.
            if self.uring.submit_and_wait(1).is_err() {
                std::process::abort();
            }
            let ended = (self.uring.completion())
                .filter(|entry| entry.user_data() < ORPHANED)
                .count();
            self.under_way -= ended;
        }
    }
}
