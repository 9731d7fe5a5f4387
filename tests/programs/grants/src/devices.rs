//! The kernel's devices for grants (`linux/include/uapi/xen/gntalloc.h`, `gntdev.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::raw::c_void;
use std::ptr::NonNull;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 4;

const ALLOC_GRANTS: u64 = 0x0018_4705;
const FREE_GRANTS: u64 = 0x0010_4706;
const ALLOC_WRITABLE: u16 = 1;
const MAP_GRANTS: u64 = 0x0018_4700;
const UNMAP_GRANTS: u64 = 0x0010_4701;
const COPY_GRANTS: u64 = 0x0010_4708;

/// An open device.
pub struct Device(File);

impl Device {
    /// Opens it.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self(file))
    }

    fn control<T>(&self, request: u64, argument: &mut [T]) -> io::Result<()> {
        let descriptor = self.0.as_raw_fd();
        let argument = argument.as_mut_ptr();
        // SAFETY: callers pass the request's own structure, as long as it says; it is exclusively borrowed.
        let result = unsafe { libc::ioctl(descriptor, request as _, argument) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Pages of a device in this process.
pub struct Pages {
    start: NonNull<c_void>,
    count: usize,
}

impl Pages {
    fn new(device: &Device, index: u64, count: usize, write: bool) -> io::Result<Self> {
        let rights = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * PAGE,
                rights,
                libc::MAP_SHARED,
                device.0.as_raw_fd(),
                index as i64,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, count }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn word(&self, page: usize, word: usize) -> *mut u32 {
        assert!(page < self.count && word < WORDS);
        let index = page * WORDS + word;
        self.start.as_ptr().cast::<u32>().wrapping_add(index)
    }

    /// A word of a page.
    pub fn read(&self, page: usize, word: usize) -> u32 {
        // SAFETY: inside the mapping; others may write it, hence volatile.
        unsafe { self.word(page, word).read_volatile() }
    }

    /// Sets a word of a page, which must be mapped for that.
    pub fn write(&mut self, page: usize, word: usize, value: u32) {
        // SAFETY: as for `read`.
        unsafe { self.word(page, word).write_volatile(value) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more. A failure leaves it, which does no harm.
        unsafe { libc::munmap(self.start.as_ptr(), self.count * PAGE) };
    }
}

/// Pages that this process grants.
pub struct Allocated<'a> {
    device: &'a Device,
    index: u64,
    grants: Vec<u32>,
    pages: Option<Pages>,
}

impl<'a> Allocated<'a> {
    /// Makes `count` of them for a domain.
    pub fn new(device: &'a Device, domain: u16, count: usize, write: bool) -> io::Result<Self> {
        // domid and flags, count, index, and the references, of which the structure has one.
        let mut words = vec![0u32; 4 + count.next_multiple_of(2)];
        let flags = if write { ALLOC_WRITABLE } else { 0 };
        words[0] = u32::from(domain) | u32::from(flags) << 16;
        words[1] = count as u32;
        device.control(ALLOC_GRANTS, &mut words)?;
        let index = u64::from(words[2]) | u64::from(words[3]) << 32;
        Ok(Self {
            device,
            index,
            grants: words[4..4 + count].to_vec(),
            pages: Some(Pages::new(device, index, count, write)?),
        })
    }

    /// References to them.
    pub fn grants(&self) -> &[u32] {
        &self.grants
    }

    /// Their content.
    pub fn pages(&mut self) -> &mut Pages {
        self.pages.as_mut().expect("pages stay until the end")
    }
}

impl Drop for Allocated<'_> {
    fn drop(&mut self) {
        self.pages = None;
        let index = [self.index as u32, (self.index >> 32) as u32];
        let mut words = [index[0], index[1], self.grants.len() as u32, 0];
        if let Err(error) = self.device.control(FREE_GRANTS, &mut words) {
            eprintln!("grants: not freed: {error}");
        }
    }
}

/// Granted pages that are mapped.
pub struct Mapped<'a> {
    device: &'a Device,
    index: u64,
    count: usize,
    pages: Option<Pages>,
}

impl<'a> Mapped<'a> {
    /// Maps grants of a domain.
    pub fn new(device: &'a Device, domain: u16, grants: &[u32], write: bool) -> io::Result<Self> {
        // count, padding, index, then domain and reference of each.
        let mut words = vec![grants.len() as u32, 0, 0, 0];
        words.extend(grants.iter().flat_map(|&grant| [domain.into(), grant]));
        device.control(MAP_GRANTS, &mut words)?;
        let index = u64::from(words[2]) | u64::from(words[3]) << 32;
        let mut mapped = Self {
            device,
            index,
            count: grants.len(),
            pages: None,
        };
        mapped.pages = Some(Pages::new(device, index, grants.len(), write)?);
        Ok(mapped)
    }

    /// Their content.
    pub fn pages(&mut self) -> &mut Pages {
        self.pages.as_mut().expect("pages stay until the end")
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        self.pages = None;
        let index = [self.index as u32, (self.index >> 32) as u32];
        let mut words = [index[0], index[1], self.count as u32, 0];
        if let Err(error) = self.device.control(UNMAP_GRANTS, &mut words) {
            eprintln!("grants: not unmapped: {error}");
        }
    }
}

/// One piece of a copy (`struct gntdev_grant_copy_segment`).
#[repr(C)]
pub struct Segment {
    source: u64,
    destination: u64,
    length: u16,
    flags: u16,
    status: i16,
    pad: u16,
}

impl Segment {
    const FROM_GRANT: u16 = 1;
    const TO_GRANT: u16 = 2;

    /// From a grant to this process.
    pub fn from_grant(domain: u16, grant: u32, offset: u16, to: &mut u32, length: u16) -> Self {
        Self {
            source: granted(domain, grant, offset),
            destination: std::ptr::from_mut(to) as u64,
            length,
            flags: Self::FROM_GRANT,
            status: 0,
            pad: 0,
        }
    }

    /// From this process to a grant.
    pub fn to_grant(from: &mut u32, domain: u16, grant: u32, offset: u16, length: u16) -> Self {
        Self {
            source: std::ptr::from_mut(from) as u64,
            destination: granted(domain, grant, offset),
            length,
            flags: Self::TO_GRANT,
            status: 0,
            pad: 0,
        }
    }

    /// How it ended.
    pub const fn status(&self) -> i16 {
        self.status
    }
}

fn granted(domain: u16, grant: u32, offset: u16) -> u64 {
    u64::from(grant) | u64::from(offset) << 32 | u64::from(domain) << 48
}

/// Copies pieces; each has a status of its own.
pub fn copy(device: &Device, segments: &mut [Segment]) -> io::Result<()> {
    let pointer = segments.as_mut_ptr() as u64;
    let mut argument = [segments.len() as u64, pointer];
    device.control(COPY_GRANTS, &mut argument)
}
