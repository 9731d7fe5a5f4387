//! Files in memory, without a copy.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use crate::PAGE_SIZE;
use crate::sys::Pages;

/// Mode bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The content of a file that is replaced, if at all, and never changed: the kernel's own pages of it, mapped.
#[derive(Debug)]
pub struct FileView {
    pages: Pages,
    size: usize,
}

impl FileView {
    /// Maps a file that only this process's user can write, and whose writers put a new file in its place when they want
    /// another content.
    ///
    /// # Errors
    /// `PermissionDenied` for a file that others could write, `InvalidInput` for what is no file or an empty one; the
    /// kernel's.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // SAFETY: the call has no argument and cannot fail.
        let user = unsafe { libc::geteuid() };
        if metadata.uid() != user || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let size = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if !metadata.is_file() || size == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let pages = Pages::of_file(file.as_fd(), size.div_ceil(PAGE_SIZE))?;
        Ok(Self { pages, size })
    }
}

impl Deref for FileView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the file's bytes, mapped for as long as `self` is there. Nobody but this user can change them, and what this
        // user's programs keep in files that are mapped they replace and do not change, as `of` asks for.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr(), self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_seen_whole_though_it_is_replaced() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let (path, other) = (
            directory.path().join("file"),
            directory.path().join("other"),
        );
        fs::write(&path, vec![7; PAGE_SIZE + 3])?;
        fs::write(&other, "other")?;
        let view = FileView::of(&File::open(&path)?)?;
        fs::rename(&other, &path)?;
        assert_eq!(*view, vec![7; PAGE_SIZE + 3]);
        Ok(())
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        fs::write(&path, "text")?;
        fs::set_permissions(&path, Permissions::from_mode(0o620))?;
        let refused = FileView::of(&File::open(&path)?).map(|_| ());
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(io::ErrorKind::PermissionDenied)
        );
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        assert_eq!(*FileView::of(&File::open(&path)?)?, *b"text");
        fs::write(&path, "")?;
        assert!(FileView::of(&File::open(&path)?).is_err());
        assert!(FileView::of(&File::open(directory.path())?).is_err());
        Ok(())
    }
}
