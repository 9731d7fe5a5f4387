//! The system calls: devices, ioctls and mappings. All other modules go through here.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{self, NonNull};

use crate::PAGE_SIZE;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Opens a device for reading and writing; an error names the device and what to do.
pub fn open_device(path: &str, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | flags)
        .open(path)
        .map_err(|error| {
            let module = path.rsplit('/').next().unwrap_or_default();
            let hint = match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("; this must run in dom0 with the module xen-{module} loaded")
                }
                io::ErrorKind::PermissionDenied => "; run as root".to_owned(),
                _ => String::new(),
            };
            io::Error::new(error.kind(), format!("{path}: {error}{hint}"))
        })
}

/// `_IOC(_IOC_NONE, kind, number, size)`: how all of Xen's ioctls are numbered.
pub const fn ioctl_number(kind: u8, number: u8, size: usize) -> u64 {
    assert!(size < 1 << 14);
    (size as u64) << 16 | (kind as u64) << 8 | number as u64
}

/// Calls an ioctl that reads (and may write) `argument`, again if a signal interrupts it. The result is not cut to 32 bits.
///
/// # Safety
/// `request` must take a `T`, and what `argument` points to must be fit for it.
pub unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u64, argument: &mut T) -> io::Result<i64> {
    loop {
        // SAFETY: the caller's promise.
        let result = unsafe {
            libc::syscall(
                libc::SYS_ioctl,
                fd.as_raw_fd(),
                request,
                ptr::from_mut(argument),
            )
        };
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The CPU's time-stamp counter: for short spans, where a clock in seconds says nothing about what a CPU could do meanwhile.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: an instruction that every x86-64 CPU has and that Linux lets processes use.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// A mapping of whole pages; unmapped on drop.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is owned, and is memory of the process, not of a thread.
unsafe impl Send for Pages {}
// SAFETY: shared references give out pointers only.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps zeroed memory of this process that stays resident, is present in the page tables and is not inherited by children:
    /// the hypervisor cannot take a page fault for a buffer, and a fork would make it copy-on-write.
    pub fn resident(pages: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let this = Self::map(pages, READ_WRITE, flags, (-1, 0))?;
        // SAFETY: the range was mapped above.
        let locked = unsafe { libc::mlock(this.as_ptr().cast(), this.size) };
        if locked != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; the advice changes what a fork does and no content.
        if unsafe { libc::madvise(this.as_ptr().cast(), this.size, libc::MADV_DONTFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(this)
    }

    /// Maps pages of a device.
    pub fn of_device(device: BorrowedFd<'_>, pages: usize) -> io::Result<Self> {
        Self::of_device_at(device, pages, 0)
    }

    /// Maps pages of a device from an offset on, which the device has given.
    pub fn of_device_at(device: BorrowedFd<'_>, pages: usize, offset: u64) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let device = (device.as_raw_fd(), offset);
        Self::map(pages, READ_WRITE, libc::MAP_SHARED, device)
    }

    /// Maps the first pages of a file, to be read only.
    pub fn of_file(file: BorrowedFd<'_>, pages: usize) -> io::Result<Self> {
        let file = (file.as_raw_fd(), 0);
        Self::map(pages, libc::PROT_READ, libc::MAP_PRIVATE, file)
    }

    /// Addresses where nothing is, for [`Pages::place`].
    pub fn room(pages: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map(pages, libc::PROT_NONE, flags, (-1, 0))
    }

    /// Maps pages of a device from an offset on in place of those from the `first` on.
    pub fn place(
        &self,
        first: usize,
        device: BorrowedFd<'_>,
        pages: usize,
        offset: u64,
    ) -> io::Result<()> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let invalid = io::ErrorKind::InvalidInput;
        let first = first.checked_mul(PAGE_SIZE).ok_or(invalid)?;
        let size = pages.checked_mul(PAGE_SIZE).ok_or(invalid)?;
        if first.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(invalid.into());
        }
        let start = self.as_ptr().wrapping_add(first).cast();
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: inside this mapping, checked above, of which nobody has a reference.
        let placed =
            unsafe { libc::mmap(start, size, READ_WRITE, flags, device.as_raw_fd(), offset) };
        if placed == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Maps pages of a file or device, from an offset on.
    fn map(
        pages: usize,
        protection: i32,
        flags: i32,
        (fd, offset): (i32, i64),
    ) -> io::Result<Self> {
        let size = pages
            .checked_mul(PAGE_SIZE)
            .filter(|&size| size > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a mapping at an address of the kernel's choice touches no other one.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, size })
    }

    /// The pages from the `first` on, as memory that stays as long as the process.
    ///
    /// # Panics
    /// If there are fewer.
    ///
    /// # Safety
    /// They are mapped to be read and written, and nothing else writes them but system calls that they are given to.
    pub unsafe fn leak(self, first: usize) -> &'static mut [u8] {
        let this = std::mem::ManuallyDrop::new(self);
        let before = first * PAGE_SIZE;
        assert!(before <= this.size, "there are not so many pages");
        // SAFETY: by the caller's promise; inside the mapping, checked above, which is not given up.
        unsafe { std::slice::from_raw_parts_mut(this.as_ptr().add(before), this.size - before) }
    }

    /// First byte.
    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and owned. A failure (too many mappings) leaks it, which nothing can be done about.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn ioctls_have_the_numbers_of_the_headers() {
        // IOCTL_PRIVCMD_HYPERCALL and IOCTL_EVTCHN_RESET, as strace shows them.
        assert_eq!(ioctl_number(b'P', 0, 48), 0x0030_5000);
        assert_eq!(ioctl_number(b'E', 5, 0), 0x4505);
    }

    #[test]
    fn resident_pages_are_aligned_and_zero() {
        let pages = Pages::resident(2).expect("memory to lock");
        assert_eq!(pages.as_ptr() as usize % PAGE_SIZE, 0);
        assert_eq!(pages.size(), 2 * PAGE_SIZE);
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { pages.as_ptr().add(PAGE_SIZE).read() }, 0);
    }

    #[test]
    fn pages_are_placed_inside_of_their_room_only() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(PAGE_SIZE as u64).expect("room for a page");
        let room = Pages::room(2).expect("addresses");
        assert!(room.place(2, file.as_fd(), 1, 0).is_err());
        assert!(room.place(1, file.as_fd(), 2, 0).is_err());
        room.place(1, file.as_fd(), 1, 0).expect("a page");
        let before = room.as_ptr() as usize;
        // SAFETY: the page of the file, which nobody else has.
        let page = unsafe { room.leak(1) };
        assert_eq!(page.as_ptr() as usize, before + PAGE_SIZE);
        page.fill(7);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4095)
            .expect("what was written");
        assert_eq!((page.len(), byte), (PAGE_SIZE, [7]));
    }

    #[test]
    fn a_missing_device_is_named_with_its_module() {
        let error = open_device("/dev/xen/does-not-exist", 0).expect_err("no such device");
        assert!(error.to_string().contains("/dev/xen/does-not-exist"));
        assert!(error.to_string().contains("xen-does-not-exist"));
    }
}
