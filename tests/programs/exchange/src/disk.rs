//! Disks: block devices past the page cache, so that each request is one of the device's.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use oxen_exchange::disk::{self, Disk, MOST, Plan, SECTOR};

use crate::Failure;

/// What memory is aligned to for the device.
const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Aligned([u8; MOST * SECTOR]);
const _: () = assert!(align_of::<Aligned>() == PAGE);

struct Device {
    file: File,
    /// Of the kernel's direct I/O, which wants aligned memory.
    bounce: Box<Aligned>,
}

impl Device {
    fn open(path: &str) -> Result<(Self, u64), Failure> {
        let mut file = (OpenOptions::new().read(true).write(true))
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|error| format!("{path}: {error}"))?;
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR as u64;
        if sectors < Plan::LEAST {
            return Err(format!("{path}: {sectors} sectors, fewer than {}", Plan::LEAST).into());
        }
        let bounce = Box::new(Aligned([0; MOST * SECTOR]));
        Ok((Self { file, bounce }, sectors))
    }
}

impl Disk for Device {
    type Error = io::Error;

    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> io::Result<()> {
        let bounce = &mut self.bounce.0[..bytes.len()];
        self.file.read_exact_at(bounce, sector * SECTOR as u64)?;
        bytes.copy_from_slice(bounce);
        Ok(())
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> io::Result<()> {
        let bounce = &mut self.bounce.0[..bytes.len()];
        bounce.copy_from_slice(bytes);
        self.file.write_all_at(bounce, sector * SECTOR as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn buffer() -> Box<disk::Buffer> {
    Box::new([0; MOST * SECTOR])
}

pub fn prepare(path: &str, seed: u64) -> Result<String, Failure> {
    let (mut device, sectors) = Device::open(path)?;
    Plan::new(seed, sectors).prepare(&mut device, &mut buffer())?;
    Ok(format!("{sectors} sectors"))
}

pub fn exchange(path: &str, seed: u64) -> Result<String, Failure> {
    let (mut device, sectors) = Device::open(path)?;
    let done = Plan::new(seed, sectors).exchange(&mut device, &mut buffer());
    done.map_err(|wrong| wrong.to_string())?;
    Ok(format!("{sectors} sectors"))
}

pub fn verify(path: &str, seed: u64) -> Result<String, Failure> {
    let (mut device, sectors) = Device::open(path)?;
    let done = Plan::new(seed, sectors).verify(&mut device, 0, &mut buffer());
    done.map_err(|wrong| wrong.to_string())?;
    Ok(format!("{sectors} sectors"))
}
