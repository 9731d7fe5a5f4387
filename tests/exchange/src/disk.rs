//! The data test of disks. Half of the disk is written before a guest has it, the other half by the guest: in requests of all sizes, some
//! of which overwrite parts of earlier ones. The guest reads all of it back, and so does the other side at the end.

use core::fmt;

use crate::Stream;
use crate::stream::mixed;

#[cfg(test)]
mod tests;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Sectors of the longest request.
pub const MOST: usize = 128;
/// Sectors of requests, in turn: single ones, parts of pages, pages, more than a direct request holds.
const SIZES: [u64; 10] = [1, 8, 3, MOST as u64, 7, 88, 16, 9, 31, 96];
/// Requests that overwrite what was there.
const OVER: u64 = 32;

/// A disk, as whoever runs the test has it.
pub trait Disk {
    /// Why something cannot be done.
    type Error;

    /// Reads whole sectors, [`MOST`] at most.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes whole sectors, [`MOST`] at most.
    ///
    /// # Errors
    /// They cannot be written.
    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Waits until all that was written is on the medium.
    ///
    /// # Errors
    /// It cannot be said.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong<E> {
    /// The disk has failed.
    Disk(E),
    /// A sector has other data than was written; from this byte of it on.
    Differs {
        /// The sector.
        sector: u64,
        /// The byte.
        byte: usize,
    },
}

impl<E> From<E> for Wrong<E> {
    fn from(error: E) -> Self {
        Self::Disk(error)
    }
}

impl<E: fmt::Display> fmt::Display for Wrong<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(out),
            Self::Differs { sector, byte } => {
                write!(
                    out,
                    "sector {sector} differs from what was written, from byte {byte} on"
                )
            }
        }
    }
}

/// Sectors that one request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first: u64,
    sectors: u64,
    stream: Stream,
}

/// The test of one disk.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    seed: u64,
    sectors: u64,
}

/// Room for the longest request.
pub type Buffer = [u8; MOST * SECTOR];

impl Plan {
    /// With a number of its own, for a disk of so many sectors, [`Plan::LEAST`] at least.
    pub const fn new(seed: u64, sectors: u64) -> Self {
        Self { seed, sectors }
    }

    /// Sectors of the smallest disk that there is a test for.
    pub const LEAST: u64 = 16 * MOST as u64;

    /// The other side's part, before a guest has the disk: writes the first half.
    ///
    /// # Errors
    /// The disk fails.
    pub fn prepare<D: Disk>(&self, disk: &mut D, buffer: &mut Buffer) -> Result<(), D::Error> {
        for (first, sectors) in spans(0, self.middle(), 0) {
            self.write(disk, first, sectors, buffer)?;
        }
        disk.flush()
    }

    /// The guest's part: reads the first half, writes the other and reads that back.
    ///
    /// # Errors
    /// The disk fails, or has not what was written.
    pub fn exchange<D: Disk>(
        &self,
        disk: &mut D,
        buffer: &mut Buffer,
    ) -> Result<(), Wrong<D::Error>> {
        self.read_range(disk, 0, self.middle(), 3, buffer)?;
        for piece in self.pieces() {
            let bytes = &mut buffer[..piece.sectors as usize * SECTOR];
            piece.stream.fill(piece.first * SECTOR as u64, bytes);
            disk.write(piece.first, bytes)?;
            // There at once, in other requests than those that wrote it.
            for sector in [piece.first, piece.first + piece.sectors - 1] {
                let bytes = &mut buffer[..SECTOR];
                disk.read(sector, bytes)?;
                compare(sector, piece.stream, bytes)?;
            }
        }
        disk.flush()?;
        self.verify(disk, 5, buffer)
    }

    /// Reads all of the disk, in requests whose sizes begin with the one of this number.
    ///
    /// # Errors
    /// The disk fails, or has not what was written.
    pub fn verify<D: Disk>(
        &self,
        disk: &mut D,
        turn: usize,
        buffer: &mut Buffer,
    ) -> Result<(), Wrong<D::Error>> {
        self.read_range(disk, 0, self.sectors, turn, buffer)
    }

    fn write<D: Disk>(
        &self,
        disk: &mut D,
        first: u64,
        sectors: u64,
        buffer: &mut Buffer,
    ) -> Result<(), D::Error> {
        let bytes = &mut buffer[..sectors as usize * SECTOR];
        self.prepared().fill(first * SECTOR as u64, bytes);
        disk.write(first, bytes)
    }

    fn read_range<D: Disk>(
        &self,
        disk: &mut D,
        first: u64,
        end: u64,
        turn: usize,
        buffer: &mut Buffer,
    ) -> Result<(), Wrong<D::Error>> {
        for (first, sectors) in spans(first, end, turn) {
            let bytes = &mut buffer[..sectors as usize * SECTOR];
            disk.read(first, bytes)?;
            let streams = self.streams(first, sectors);
            for ((sector, stream), bytes) in (first..).zip(streams).zip(bytes.chunks_exact(SECTOR))
            {
                compare(sector, stream, bytes)?;
            }
        }
        Ok(())
    }

    const fn middle(&self) -> u64 {
        self.sectors / 2
    }

    const fn prepared(&self) -> Stream {
        Stream(mixed(self.seed))
    }

    /// What the guest writes, in order: all of its half, then parts of that again.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let plan = *self;
        let all = spans(self.middle(), self.sectors, 0);
        let over = (0..OVER).map(move |nth| {
            let sectors = SIZES[nth as usize % SIZES.len()];
            let room = plan.sectors - plan.middle() - sectors;
            (plan.middle() + mixed(plan.seed ^ nth) % room, sectors)
        });
        (1..)
            .zip(all.chain(over))
            .map(move |(nth, (first, sectors))| Piece {
                first,
                sectors,
                stream: Stream(mixed(plan.seed ^ nth << 32)),
            })
    }

    /// What sectors have in the end, [`MOST`] at most, from `first` on.
    fn streams(&self, first: u64, sectors: u64) -> [Stream; MOST] {
        let mut streams = [self.prepared(); MOST];
        for piece in self.pieces() {
            let begin = piece.first.max(first);
            let end = (piece.first + piece.sectors).min(first + sectors);
            for sector in begin..end {
                streams[(sector - first) as usize] = piece.stream;
            }
        }
        streams
    }
}

/// Sectors `first` to `end` in requests of all sizes, which begin with the one of this number: where each begins, and how long it is.
fn spans(first: u64, end: u64, turn: usize) -> impl Iterator<Item = (u64, u64)> {
    let sizes = SIZES.iter().copied().cycle().skip(turn);
    let mut next = first;
    sizes.map_while(move |size| {
        let begin = next;
        next = end.min(begin + size);
        (begin < end).then_some((begin, next - begin))
    })
}

fn compare<E>(sector: u64, stream: Stream, bytes: &[u8]) -> Result<(), Wrong<E>> {
    match stream.first_wrong(sector * SECTOR as u64, bytes) {
        None => Ok(()),
        Some(byte) => Err(Wrong::Differs { sector, byte }),
    }
}
