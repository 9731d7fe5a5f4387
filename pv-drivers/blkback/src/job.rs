//! One request on its way.

use arrayvec::ArrayVec;
use oxen_blkif::{Body, Kind, Request, Response, Segment, Status, Wrong};

use crate::buffer::Buffer;
use crate::guest::{Piece, Side};
use crate::image::Geometry;

/// A step on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What was written before is on the medium.
    Sync,
    /// The buffer's content comes from the disk.
    Read,
    /// It goes to the disk.
    Write,
    /// So many bytes are not needed any more.
    Discard {
        /// How many.
        bytes: u64,
    },
}

/// Bytes that are discarded at once. The kernel ends no discard that it has begun, nor the process that waits for it; some media
/// take long over a whole disk.
pub const MOST_DISCARDED: u64 = 1 << 30;

/// Steps of a request at most: a barrier's.
const MOST_STEPS: usize = 3;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was begun.
    Waiting,
    /// A step is under way.
    Running,
    /// What was read has to go to the guest.
    Read,
    /// It can be answered.
    Done,
}

/// A request and what has become of it.
#[derive(Debug)]
pub struct Job {
    pub(crate) response: Response,
    /// How far it is.
    pub stage: Stage,
    /// What is left to be done, the last first.
    steps: ArrayVec<Step, MOST_STEPS>,
    segments: Vec<Segment>,
    /// Where on the disk it begins, in bytes.
    start: u64,
    /// Bytes that the present step has moved.
    moved: usize,
    /// Bytes of data.
    length: usize,
    /// Where they are on their way.
    pub buffer: Option<Buffer>,
    /// Earlier ones have to be done before it, and later ones wait for it.
    pub barrier: bool,
    reads: bool,
}

impl Job {
    fn new(id: u64, operation: u8) -> Self {
        Self {
            response: Response {
                id,
                operation,
                status: Status::Okay,
            },
            stage: Stage::Waiting,
            steps: ArrayVec::new(),
            segments: Vec::new(),
            start: 0,
            moved: 0,
            length: 0,
            buffer: None,
            barrier: false,
            reads: false,
        }
    }

    /// What cannot be done: it is answered so.
    pub fn refused(wrong: &Wrong, status: Status) -> Self {
        let mut job = Self::new(wrong.id, wrong.operation);
        job.fail(status);
        job
    }

    /// From a request with all its segments. One that the disk cannot do is answered so; the text says why.
    pub fn plan(
        request: &Request,
        segments: Vec<Segment>,
        disk: &Geometry,
    ) -> (Self, Option<String>) {
        let mut job = Self::new(request.id, request.operation());
        let (kind, sectors) = match &request.body {
            Body::Discard { sectors, secure } => {
                if *secure || disk.discard.is_none() {
                    job.fail(Status::NotSupported);
                    return (job, Some("a discard, which is not offered".to_owned()));
                }
                job.steps.push(Step::Discard {
                    bytes: sectors.saturating_mul(oxen_blkif::SECTOR),
                });
                (Kind::Write, *sectors)
            }
            Body::Direct { kind, .. } | Body::Indirect { kind, .. } => {
                let sectors: u64 = segments.iter().map(|segment| segment.sectors()).sum();
                job.steps.extend(steps(*kind, sectors > 0));
                (*kind, sectors)
            }
        };
        if let Some(complaint) = refuse(request.sector, sectors, kind, disk) {
            job.fail(Status::Error);
            return (job, Some(complaint));
        }
        // Without data it is at no place: Linux has -1 there.
        if sectors > 0 {
            job.start = request.sector * oxen_blkif::SECTOR;
        }
        job.length = segments.iter().map(|segment| segment.bytes()).sum();
        job.segments = segments;
        job.barrier = kind == Kind::Barrier;
        job.reads = kind == Kind::Read;
        (job, None)
    }

    fn fail(&mut self, status: Status) {
        self.response.status = status;
        self.stage = Stage::Done;
        self.steps.clear();
    }

    /// Bytes of data.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Whether data has to come from the guest before it is begun.
    pub const fn wants_data(&self) -> bool {
        self.length > 0 && !self.reads
    }

    /// The step that is to be begun or to be gone on with, and where: file offset, and the range of the buffer.
    pub fn step(&self) -> Option<(Step, u64, std::ops::Range<usize>)> {
        let offset = self.start + self.moved as u64;
        Some(match *self.steps.last()? {
            Step::Discard { bytes } => {
                let bytes = (bytes - self.moved as u64).min(MOST_DISCARDED);
                (Step::Discard { bytes }, offset, 0..0)
            }
            step => (step, offset, self.moved..self.length),
        })
    }

    /// A step came to its end, with the result of the system call that it stands for. True if there is another to be begun.
    pub fn stepped(&mut self, result: i32) -> bool {
        let (Some(&whole), Some((step, ..))) = (self.steps.last(), self.step()) else {
            return false;
        };
        if result < 0 {
            self.fail(if is_unsupported(step, result) {
                Status::NotSupported
            } else {
                Status::Error
            });
            return false;
        }
        let (moved, all) = match (step, whole) {
            (Step::Discard { bytes }, Step::Discard { bytes: all }) => {
                (bytes as usize, all as usize)
            }
            // Nothing more where the disk should go on: it has become shorter than it was.
            (Step::Read | Step::Write, _) if result == 0 => {
                self.fail(Status::Error);
                return false;
            }
            (Step::Read | Step::Write, _) => (result as usize, self.length),
            _ => (0, 0),
        };
        self.moved += moved;
        if self.moved < all {
            return true;
        }
        self.moved = 0;
        self.steps.pop();
        if !self.steps.is_empty() {
            return true;
        }
        self.stage = if self.reads { Stage::Read } else { Stage::Done };
        false
    }

    /// The copies of its data, from the guest or to it.
    pub fn pieces(&mut self) -> impl Iterator<Item = Piece<'_>> {
        let (segments, mut rest) = match &mut self.buffer {
            Some(buffer) => (&self.segments[..], &mut buffer.bytes_mut()[..self.length]),
            None => (&[][..], &mut [][..]),
        };
        let reads = self.reads;
        segments.iter().map(move |segment| {
            let (own, more) = std::mem::take(&mut rest).split_at_mut(segment.bytes());
            rest = more;
            Piece {
                reference: segment.reference,
                offset: segment.offset(),
                side: if reads { Side::Out(own) } else { Side::In(own) },
            }
        })
    }

    /// The answer, once it is done.
    pub const fn response(&self) -> &Response {
        &self.response
    }
}

/// Whether a step failed because the medium has no such operation.
pub fn is_unsupported(step: Step, result: i32) -> bool {
    matches!(step, Step::Discard { .. }) && result == -libc::EOPNOTSUPP
}

/// What an operation is on the disk, the last step first.
fn steps(kind: Kind, has_data: bool) -> impl Iterator<Item = Step> {
    let steps: &[Step] = match kind {
        Kind::Read => &[Step::Read],
        Kind::Write => &[Step::Write],
        Kind::Barrier if has_data => &[Step::Sync, Step::Write, Step::Sync],
        Kind::Flush if has_data => &[Step::Write, Step::Sync],
        Kind::Barrier | Kind::Flush => &[Step::Sync],
    };
    steps.iter().copied()
}

/// Why the disk cannot do it, if it cannot.
fn refuse(sector: u64, sectors: u64, kind: Kind, disk: &Geometry) -> Option<String> {
    // What is only to be flushed is at no place.
    if sectors == 0 && matches!(kind, Kind::Flush | Kind::Barrier) {
        return None;
    }
    if disk.read_only && kind.writes() {
        return Some("a write to a disk that is read-only".to_owned());
    }
    let unit = u64::from(disk.sector_size) / oxen_blkif::SECTOR;
    if sectors > 0 && ((sector | sectors) & (unit - 1)) != 0 {
        return Some(format!(
            "{sectors} sectors at {sector}, which are not whole ones of {} bytes",
            disk.sector_size
        ));
    }
    let end = sector.checked_add(sectors);
    if end.is_none_or(|end| end > disk.sectors) {
        return Some(format!(
            "{sectors} sectors at {sector}, where the disk has {}",
            disk.sectors
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel ends no discard that it has begun: none takes for ever.
    #[test]
    fn a_large_discard_is_done_in_parts() {
        let sectors = (2 * MOST_DISCARDED + 4096) / oxen_blkif::SECTOR;
        let disk = Geometry {
            sectors: 1 << 40,
            sector_size: 512,
            physical_sector_size: 512,
            discard: Some(4096),
            read_only: false,
            direct: true,
        };
        let request = Request {
            id: 7,
            sector: 8,
            body: Body::Discard {
                sectors,
                secure: false,
            },
        };
        let (mut job, complaint) = Job::plan(&request, Vec::new(), &disk);
        assert_eq!(complaint, None);
        let mut parts = Vec::new();
        loop {
            let Some((Step::Discard { bytes }, offset, _)) = job.step() else {
                panic!("{job:?}");
            };
            parts.push((offset, bytes));
            if !job.stepped(0) {
                break;
            }
        }
        let gib = MOST_DISCARDED;
        assert_eq!(
            parts,
            [(4096, gib), (4096 + gib, gib), (4096 + 2 * gib, 4096)]
        );
        assert_eq!(
            (job.stage, job.response().status),
            (Stage::Done, Status::Okay)
        );
        // One that the medium has not is said to be none, in whichever part.
        let (mut job, _) = Job::plan(&request, Vec::new(), &disk);
        assert!(job.stepped(0));
        assert!(!job.stepped(-libc::EOPNOTSUPP));
        assert_eq!(job.response().status, Status::NotSupported);
    }
}
