//! Files that processes share, or leave to each other, as words.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;

use crate::PAGE_SIZE;
use crate::sys::Pages;

/// A file's content, mapped to be read and written. What is stored is in the file at once, for whoever maps it next: also if this process
/// is killed.
///
/// Others may write the same file, so it is seen as atomic words only.
#[derive(Debug)]
pub struct SharedFile {
    pages: Pages,
}

impl SharedFile {
    /// Maps a file of whole pages, open for reading and writing. Nobody may make it shorter: who stores where nothing is any more is
    /// killed.
    ///
    /// # Errors
    /// `InvalidInput` for a file that is empty or has a part of a page; the kernel's.
    pub fn of(file: &File) -> io::Result<Self> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        if !size.is_multiple_of(PAGE_SIZE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let pages = Pages::of_device(file.as_fd(), size / PAGE_SIZE)?;
        Ok(Self { pages })
    }
}

impl AsRef<[AtomicU32]> for SharedFile {
    #[inline]
    fn as_ref(&self) -> &[AtomicU32] {
        // SAFETY: mapped, page-aligned, so long, and as long as `self`; this process sees it as atomics only. What another process does
        // to it is as another thread's access to the same words.
        unsafe {
            std::slice::from_raw_parts(
                self.pages.as_ptr().cast::<AtomicU32>(),
                self.pages.size() / 4,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_stored_is_in_the_file() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        file.set_len(2 * PAGE_SIZE as u64)?;
        let (first, second) = (SharedFile::of(&file)?, SharedFile::of(&file)?);
        assert_eq!(first.as_ref().len(), 2 * PAGE_SIZE / 4);
        first.as_ref()[1500].store(7, Ordering::Relaxed);
        drop(first);
        assert_eq!(second.as_ref()[1500].load(Ordering::Relaxed), 7);
        Ok(())
    }

    #[test]
    fn parts_of_pages_are_refused() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        for size in [0, 1, PAGE_SIZE as u64 + 4] {
            file.set_len(size)?;
            let refused = SharedFile::of(&file)
                .map(drop)
                .map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidInput), "{size}");
        }
        Ok(())
    }
}
