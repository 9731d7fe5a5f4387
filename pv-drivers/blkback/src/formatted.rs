//! Images in formats that only grow with what is written: qcow2.
//!
//! The library keeps tables of the image in memory. A worker may be killed at any time, and the next one has only what is in the file, so
//! whatever has been answered is in the file with all that leads to it. Requests are done one after the other: each may change the tables
//! that the next one needs.

use std::io;
use std::path::Path;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};

use crate::job::{Job, Step};

/// Bytes that are allocated at once are rarely fewer: what is smaller is zeroed when it is discarded, not given back.
pub const DISCARD: u32 = 64 * 1024;

/// An open image.
#[derive(Debug)]
pub struct Formatted {
    image: FormatAccess<File>,
}

impl Formatted {
    /// Opens a qcow2 image, with those that it is an overlay of, which are only read.
    ///
    /// # Errors
    /// One of them cannot be opened or is no such image.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let image = Qcow2::<File>::builder_path(path)
            .write(!read_only)
            .open(PermissiveImplicitOpenGate::default())?;
        Ok(Self {
            image: FormatAccess::new(image),
        })
    }

    /// Bytes that the guest sees.
    pub fn size(&self) -> u64 {
        self.image.size()
    }

    /// Does the step that a job is at; returns what io_uring would: bytes moved, or the negative error.
    pub fn act(&mut self, job: &mut Job) -> Option<i32> {
        let (step, offset, range) = job.step()?;
        let length = i32::try_from(range.len()).ok()?;
        let done = match step {
            Step::Sync => self.image.flush().and_then(|()| self.image.sync()),
            Step::Discard { bytes } => self.image.discard_to_zero(offset, bytes),
            Step::Read => {
                let buffer = &mut job.buffer.as_mut()?.bytes_mut()[range];
                self.image.read(buffer, offset)
            }
            Step::Write => {
                let buffer = &job.buffer.as_ref()?.bytes()[range];
                self.image.write(buffer, offset)
            }
        };
        let kept = match step {
            Step::Write | Step::Discard { .. } => done.and_then(|()| self.image.flush()),
            Step::Read | Step::Sync => done,
        };
        Some(match (kept, step) {
            (Ok(()), Step::Read | Step::Write) => length,
            (Ok(()), Step::Sync | Step::Discard { .. }) => 0,
            (Err(error), _) => -error.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}
