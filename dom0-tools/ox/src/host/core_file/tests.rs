//! The image of a guest that is not there.

use std::collections::BTreeMap;

use super::*;

struct Pages(BTreeMap<u64, u8>);

impl Memory for Pages {
    fn last(&self) -> io::Result<u64> {
        Ok(self.0.keys().next_back().copied().unwrap_or(0))
    }

    fn most(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn pages(
        &self,
        first: u64,
        count: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.0
            .range(first..first + count)
            .try_for_each(|(gfn, byte)| visit(*gfn, &[*byte; PAGE as usize]))
    }
}

fn word(file: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&file[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Every page that the file's segments have, by its address.
fn loaded(file: &[u8]) -> BTreeMap<u64, u8> {
    let count = usize::from(u16::from_le_bytes([file[56], file[57]]));
    let mut found = BTreeMap::new();
    for at in (0..count).map(|nth| 64 + 56 * nth) {
        if file[at] != 1 {
            continue;
        }
        let (offset, address, size) =
            (word(file, at + 8), word(file, at + 24), word(file, at + 32));
        for page in 0..size / PAGE {
            let from = (offset + page * PAGE) as usize;
            found.insert(address / PAGE + page, file[from]);
        }
    }
    found
}

#[test]
fn every_page_is_at_its_address() -> io::Result<()> {
    let low = (0..300).map(|gfn| (gfn, 1 + (gfn % 250) as u8));
    let pages: BTreeMap<u64, u8> = low
        .chain([(5000, 7), (0xF_EFFC, 8), (0xF_EFFF, 9), (0x10_0000, 0)])
        .collect();
    let mut file = tempfile::tempfile()?;
    fill(&mut file, &Pages(pages.clone()), b"")?;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    assert_eq!(loaded(&bytes), pages);
    Ok(())
}

/// Or the search would take hours, and who destroys the guest would wait for it.
#[test]
fn a_page_far_from_all_others_is_not_looked_for() -> io::Result<()> {
    let pages: BTreeMap<u64, u8> = (0..100).chain([1 << 36]).map(|gfn| (gfn, 1)).collect();
    let mut file = tempfile::tempfile()?;
    fill(&mut file, &Pages(pages), b"")?;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    assert_eq!(loaded(&bytes).len(), 100);
    Ok(())
}

#[test]
fn more_holes_than_segments_do_no_harm() -> io::Result<()> {
    let pages: BTreeMap<u64, u8> = (0..2000).map(|nth| (nth * 2, 1)).collect();
    let mut file = tempfile::tempfile()?;
    fill(&mut file, &Pages(pages.clone()), b"")?;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let mut found = loaded(&bytes);
    found.retain(|_, byte| *byte != 0);
    assert_eq!(found, pages);
    Ok(())
}

#[test]
fn registers_are_where_a_debugger_looks() {
    let mut record = vec![0; 1032];
    record[512..520].copy_from_slice(&0x11_u64.to_le_bytes());
    record[640..648].copy_from_slice(&0x22_u64.to_le_bytes());
    let mut context = vec![1, 0, 0, 0, 4, 0, 0, 0, 9, 9, 9, 9, 2, 0, 3, 0];
    context.extend(1032_u32.to_le_bytes());
    context.extend(&record);
    let notes = elf::notes(&context);
    assert_eq!(notes.len(), 12 + 8 + 336);
    let status = &notes[20..];
    assert_eq!(status[32], 4);
    assert_eq!(word(status, 112 + 8 * 10), 0x11);
    assert_eq!(word(status, 112 + 8 * 16), 0x22);
    // What is cut off is left out.
    assert!(elf::notes(&context[..context.len() - 1]).is_empty());
    assert!(elf::notes(&[]).is_empty());
}
