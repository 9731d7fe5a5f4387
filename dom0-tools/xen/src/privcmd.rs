//! Hypercalls from user space (`/dev/xen/privcmd`), and the memory that their arguments may point to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::PAGE_SIZE;
use crate::plain::Plain;
use crate::sys::{self, Pages};

const PRIVCMD: &str = "/dev/xen/privcmd";
/// Gives out memory that the kernel never moves; Linux has it since 4.18.
const BUFFERS: &str = "/dev/xen/hypercall";

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Call {
    number: u64,
    args: [u64; 5],
}

const IOCTL_HYPERCALL: u64 = sys::ioctl_number(b'P', 0, 48);
const _: () = assert!(size_of::<Call>() == 48);

/// An open `/dev/xen/privcmd`. All-powerful over other domains: keep it out of processes that do not need it.
#[derive(Debug)]
pub struct Privcmd {
    device: File,
    buffers: Option<File>,
}

impl Privcmd {
    /// Opens the device.
    ///
    /// # Errors
    /// Not dom0, module `xen-privcmd` not loaded, or no permission; the message says which device.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            device: sys::open_device(PRIVCMD, 0)?,
            buffers: sys::open_device(BUFFERS, 0).ok(),
        })
    }

    /// Makes a hypercall. Pointers in `args`, and in what they point to, are into [`HypercallBuffer`]s of this process that
    /// are alive and large enough.
    ///
    /// # Errors
    /// The hypervisor's errno.
    pub fn hypercall(&self, number: u64, args: [u64; 5]) -> io::Result<i64> {
        let mut call = Call { number, args };
        // SAFETY: the ioctl takes a `privcmd_hypercall` and writes nothing to it. What the hypervisor writes through the
        // arguments goes to the caller's buffers.
        unsafe { sys::ioctl(self.device.as_fd(), IOCTL_HYPERCALL, &mut call) }
    }

    /// Zeroed memory of at least `bytes` that hypercalls can point to.
    ///
    /// # Errors
    /// Out of memory, or over the limit of locked memory.
    pub fn buffer(&self, bytes: usize) -> io::Result<HypercallBuffer> {
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        let pages = match &self.buffers {
            Some(device) => Pages::of_device(device.as_fd(), pages)?,
            None => Pages::resident(pages)?,
        };
        // The device does not promise zeroes.
        // SAFETY: the whole mapping, which is new and nobody else's.
        unsafe { pages.as_ptr().write_bytes(0, pages.size()) };
        Ok(HypercallBuffer { pages })
    }

    /// A buffer with `values`, one after another.
    ///
    /// # Errors
    /// As [`Privcmd::buffer`].
    pub fn buffer_of<T: Plain>(&self, values: &[T]) -> io::Result<HypercallBuffer> {
        let mut buffer = self.buffer(size_of_val(values))?;
        for (i, &value) in values.iter().enumerate() {
            buffer.write(i * size_of::<T>(), value);
        }
        Ok(buffer)
    }

    pub(crate) fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Page-aligned memory that stays present, so that the hypervisor can read and write it without a page fault.
#[derive(Debug)]
pub struct HypercallBuffer {
    pages: Pages,
}

impl HypercallBuffer {
    /// Its address, as hypercalls take it.
    pub fn address(&self) -> u64 {
        self.pages.as_ptr() as u64
    }

    /// Bytes, a multiple of a page.
    pub const fn size(&self) -> usize {
        self.pages.size()
    }

    /// Reads a value at a byte offset.
    ///
    /// # Panics
    /// If it is not all inside the buffer.
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        self.check(offset, size_of::<T>());
        // SAFETY: inside the mapping, checked above; any bytes are a `T`. The hypervisor writes only during a hypercall.
        unsafe { self.pages.as_ptr().add(offset).cast::<T>().read_unaligned() }
    }

    /// Writes a value at a byte offset.
    ///
    /// # Panics
    /// If it would not be all inside the buffer.
    pub fn write<T: Plain>(&mut self, offset: usize, value: T) {
        self.check(offset, size_of::<T>());
        // SAFETY: inside the mapping, checked above, and borrowed exclusively.
        unsafe {
            self.pages
                .as_ptr()
                .add(offset)
                .cast::<T>()
                .write_unaligned(value)
        };
    }

    /// Copies bytes to its beginning.
    ///
    /// # Panics
    /// If they would not be all inside the buffer.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.check(0, bytes.len());
        // SAFETY: inside the mapping, checked above, and borrowed exclusively; nothing else of this process lies there.
        unsafe {
            self.pages
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Copies out the first `size` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn to_vec(&self, size: usize) -> Vec<u8> {
        self.check(0, size);
        // SAFETY: inside the mapping, checked above; initialised by the kernel.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr(), size) }.to_vec()
    }

    fn check(&self, offset: usize, size: usize) {
        assert!(
            offset
                .checked_add(size)
                .is_some_and(|end| end <= self.size()),
            "{size} bytes at {offset} are outside of a buffer of {}",
            self.size()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer() -> HypercallBuffer {
        HypercallBuffer {
            pages: Pages::resident(1).expect("memory to lock"),
        }
    }

    #[test]
    fn values_are_read_back_at_any_offset() {
        let mut buffer = buffer();
        buffer.write(3, 0x1122_3344_5566_7788_u64);
        buffer.write(4092, [1_u8, 2, 3, 4]);
        assert_eq!(buffer.read::<u64>(3), 0x1122_3344_5566_7788);
        assert_eq!(buffer.read::<u32>(4092), 0x0403_0201);
        assert_eq!(buffer.to_vec(4)[3], 0x88);
        buffer.fill(&[9; 4]);
        assert_eq!(buffer.to_vec(5), [9, 9, 9, 9, 0x77]);
    }

    #[test]
    #[should_panic(expected = "outside of a buffer")]
    fn a_write_over_the_end_is_caught() {
        buffer().write(4090, 0_u64);
    }
}
