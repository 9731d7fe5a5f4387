use core::convert::Infallible;

use super::*;

const SECTORS: u64 = Plan::LEAST;

/// A disk in memory, which spoils one sector whenever it is written.
struct Memory {
    bytes: Vec<u8>,
    spoilt: Option<u64>,
    flushed: bool,
}

impl Memory {
    fn new(spoilt: Option<u64>) -> Self {
        Self {
            bytes: vec![0; SECTORS as usize * SECTOR],
            spoilt,
            flushed: false,
        }
    }
}

impl Disk for Memory {
    type Error = Infallible;

    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.bytes[sector as usize * SECTOR..][..bytes.len()]);
        Ok(())
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), Infallible> {
        self.flushed = false;
        self.bytes[sector as usize * SECTOR..][..bytes.len()].copy_from_slice(bytes);
        if let Some(spoilt) = self.spoilt {
            self.bytes[spoilt as usize * SECTOR + 77] ^= 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.flushed = true;
        Ok(())
    }
}

#[test]
fn an_honest_disk_passes() {
    let (plan, mut buffer) = (Plan::new(7, SECTORS), [0; MOST * SECTOR]);
    let mut disk = Memory::new(None);
    let Ok(()) = plan.prepare(&mut disk, &mut buffer);
    assert!(disk.flushed);
    assert_eq!(plan.exchange(&mut disk, &mut buffer), Ok(()));
    assert!(disk.flushed);
    assert_eq!(plan.verify(&mut disk, 0, &mut buffer), Ok(()));
    // Another test's data is none of this one's.
    let other = Plan::new(8, SECTORS);
    let first = Wrong::Differs { sector: 0, byte: 0 };
    assert_eq!(other.verify(&mut disk, 0, &mut buffer), Err(first));
}

#[test]
fn sectors_all_over_the_disk_count() {
    let (plan, mut buffer) = (Plan::new(7, SECTORS), [0; MOST * SECTOR]);
    let mut disk = Memory::new(None);
    let Ok(()) = plan.prepare(&mut disk, &mut buffer);
    assert_eq!(plan.exchange(&mut disk, &mut buffer), Ok(()));
    for sector in (0..SECTORS).step_by(131) {
        let at = sector as usize * SECTOR + 511;
        disk.bytes[at] ^= 1;
        let wrong = Wrong::Differs { sector, byte: 511 };
        assert_eq!(plan.verify(&mut disk, 2, &mut buffer), Err(wrong));
        disk.bytes[at] ^= 1;
    }
}

#[test]
fn a_disk_that_spoils_a_sector_is_found_out_by_the_guest() {
    let (plan, mut buffer) = (Plan::new(7, SECTORS), [0; MOST * SECTOR]);
    // An odd number of writes, or an even one with a spoilt overwrite: either way the guest looks in between.
    let spoilt = SECTORS - 1;
    let mut disk = Memory::new(Some(spoilt));
    let Ok(()) = plan.prepare(&mut disk, &mut buffer);
    let wrong = Wrong::Differs {
        sector: spoilt,
        byte: 77,
    };
    assert_eq!(plan.exchange(&mut disk, &mut buffer), Err(wrong));
}
