//! The loop around io_uring: what the guest asks for is begun, what has ended is answered.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use io_uring::{IoUring, cqueue, opcode, register::Restriction, squeue, types};
use oxen_backend::{Failure, Linger};

use crate::buffer::Pool;
use crate::guest::Guest;
use crate::image::{Act, Image};
use crate::job::{Job, Stage, is_unsupported};
use crate::queue::Queue;

/// Entries of the submission queue: what is more goes in several parts.
const ENTRIES: u32 = 128;
/// Completions that have no job: the guest's events.
const EVENTS: u64 = u64::MAX;
/// Whoever started us is gone.
const ORPHANED: u64 = u64::MAX - 1;
/// Bits of a completion's number that are the job's; the queue is above them.
const JOB_BITS: u32 = 48;

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
    linger: Linger,
}

impl<G: Guest, M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Engine<G, M, J> {
    /// Over a disk and its guest's queues. `parent` ends when whoever started us does. The kernel keeps `lock` open until all that this
    /// process had begun is over, also where it is killed: that may be a while after the process.
    ///
    /// # Errors
    /// The kernel has no io_uring, or has it forbidden.
    pub fn new(
        guest: G,
        image: Image,
        queues: Vec<Queue<M, J>>,
        parent: OwnedFd,
        lock: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let uring = make_uring().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("io_uring: {error} (is kernel.io_uring_disabled set?)"),
            )
        })?;
        let mut pool = Pool::default();
        if image.is_plain() {
            pool.make_known(|memory| {
                // SAFETY: a buffer is used by its number while a job has it, and `drop` waits for what is under way.
                unsafe { uring.submitter().register_buffers(memory) }
            });
        }
        uring.submitter().register_files(&[lock.as_raw_fd()])?;
        restrict(&uring)?;
        uring.submitter().register_enable_rings()?;
        Ok(Self {
            guest,
            image,
            queues,
            pool,
            uring,
            under_way: 0,
            parent,
            polled: [false; 2],
            linger: Linger::default(),
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
        self.wait()?;
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

    /// Waits for something to do, unless there is.
    fn wait(&mut self) -> Result<(), Failure> {
        self.poll().map_err(broken)?;
        if self.is_idle() && self.uring.submission().is_empty() && self.linger.is_due() {
            let queues = &self.queues;
            // One may have been asked for while the last answer was waited for.
            queues.iter().for_each(Queue::stay_awake);
            if self.linger.look(|| queues.iter().any(Queue::stirs)) {
                self.queues.iter_mut().for_each(|queue| queue.awake = true);
                return Ok(());
            }
        }
        for queue in self.queues.iter_mut().filter(|queue| !queue.awake) {
            queue.sleep()?;
        }
        let has_work = self.pool.has_room() && self.queues.iter().any(|queue| queue.awake);
        self.enter(usize::from(!has_work)).map_err(broken)
    }

    /// Whether only the guest can be what is waited for.
    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.queues.iter().all(|queue| !queue.awake)
    }

    /// Sees to it that the kernel tells of the guest's events and of our starter's end.
    fn poll(&mut self) -> io::Result<()> {
        let polls = [
            (EVENTS, self.guest.descriptor().as_raw_fd()),
            (ORPHANED, self.parent.as_raw_fd()),
        ];
        for (nth, (number, descriptor)) in polls.into_iter().enumerate() {
            if !std::mem::replace(&mut self.polled[nth], true) {
                let poll = opcode::PollAdd::new(types::Fd(descriptor), libc::POLLIN as u32)
                    .multi(true)
                    .build();
                self.push(poll.user_data(number))?;
            }
        }
        Ok(())
    }

    /// Gives the kernel what is to be done and waits for so many of its answers.
    fn enter(&mut self, answers: usize) -> io::Result<()> {
        match self.uring.submit_and_wait(answers) {
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
            self.enter(0)?;
        }
    }

    /// Takes what has ended.
    fn reap(&mut self) -> Result<Turn, Failure> {
        while let Some(entry) = self.next_ended() {
            match entry.user_data() {
                ORPHANED => return Ok(Turn::Orphaned),
                EVENTS => {
                    self.polled[0] = cqueue::more(entry.flags());
                    let queues = &mut self.queues;
                    let taken = self.guest.events(&mut |queue| queues[queue].awake = true);
                    taken.map_err(broken)?;
                }
                number => {
                    self.under_way -= 1;
                    let (queue, job) = split(number);
                    self.ended(queue, job, entry.result()).map_err(broken)?;
                }
            }
        }
        Ok(Turn::GoOn)
    }

    fn next_ended(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    fn ended(&mut self, queue: usize, number: u64, result: i32) -> io::Result<()> {
        let job = self.queues[queue].job(number);
        if job.is_some_and(|job| goes_on(job, result)) {
            self.submit(queue, number)?;
        }
        Ok(())
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

    /// Begins a job's step; where the image does steps itself, all that are left.
    fn submit(&mut self, queue: usize, number: u64) -> io::Result<()> {
        while let Some(job) = self.queues[queue].job(number) {
            match self.image.act(job) {
                None => break,
                Some(Act::ByKernel(entry)) => {
                    self.push(entry.user_data(joined(queue, number)))?;
                    self.under_way += 1;
                    return Ok(());
                }
                Some(Act::Done(result)) => {
                    if !goes_on(job, result) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// An io_uring that does nothing yet.
fn make_uring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_coop_taskrun();
    // What has ended is told when it is asked for: no sooner, and with less ado. Kernels before 6.1 do not know that.
    let mut better = builder.clone();
    better
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    better.build(ENTRIES).or_else(|error| {
        if error.raw_os_error() == Some(libc::EINVAL) {
            builder.build(ENTRIES)
        } else {
            Err(error)
        }
    })
}

/// The ring can do nothing but what a disk needs, whoever comes to hold it.
///
/// It has no files of its own (`IORING_REGISTER_FILES`) but the lock, though others would save some hundred instructions a request: the kernel
/// closes those a while after the process has ended.
fn restrict(uring: &IoUring) -> io::Result<()> {
    let mut allowed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
    ]
    .map(Restriction::sqe_op);
    uring.submitter().register_restrictions(&mut allowed)
}

/// Notes how a job's step ended; whether the job has another, or that one once more.
fn goes_on(job: &mut Job, result: i32) -> bool {
    // What could not be done now can be done later.
    let again = matches!(-result, libc::EAGAIN | libc::EINTR);
    let step = job.step();
    // The guest is told that there is no such operation, and asks no more.
    let unsupported = (step.as_ref()).is_some_and(|(step, ..)| is_unsupported(*step, result));
    if result < 0 && !again && !unsupported {
        let error = io::Error::from_raw_os_error(-result);
        log::error!("the disk fails: {step:?}: {error}");
    }
    again || job.stepped(result)
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
