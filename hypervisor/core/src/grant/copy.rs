//! Copies between two pages, within what grants give of them.

use oxen_abi::grant::Status;

use crate::address::PAGE_SIZE;
use crate::guest_page::GuestPage;

/// The part of a page that may be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u16,
    /// Bytes.
    pub length: u16,
}

impl Range {
    /// All of a page.
    pub const PAGE: Self = Self {
        offset: 0,
        length: PAGE_SIZE as u16,
    };

    /// Whether `length` bytes at `offset` are in it.
    const fn covers(self, offset: u16, length: u16) -> bool {
        let end = offset as u32 + length as u32;
        offset >= self.offset && end <= self.offset as u32 + self.length as u32
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The page.
    pub page: GuestPage,
    /// What may be touched of it.
    pub range: Range,
    /// Where the copy begins.
    pub offset: u16,
}

/// Copies bytes. Guests may write both pages at the same time; each byte is read once.
///
/// # Errors
/// `BadCopyArg` beyond the end of a page, `GeneralError` beyond what may be touched.
pub fn copy(from: End, to: End, length: u16) -> Result<(), Status> {
    let beyond = |end: &End| usize::from(end.offset) + usize::from(length) > PAGE_SIZE;
    if beyond(&from) || beyond(&to) {
        return Err(Status::BadCopyArg);
    }
    let covered = |end: &End| end.range.covers(end.offset, length);
    if !covered(&from) || !covered(&to) {
        return Err(Status::GeneralError);
    }
    let (source, destination) = (from.offset.into(), to.offset.into());
    let length = length.into();
    to.page.copy_from(destination, &from.page, source, length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_page::testing::leaked_page;

    fn end(page: GuestPage, offset: u16) -> End {
        End {
            page,
            range: Range::PAGE,
            offset,
        }
    }

    #[test]
    fn exactly_the_bytes_asked_for_are_copied() {
        let (from, to) = (leaked_page(), leaked_page());
        let data: Vec<u8> = (0..PAGE_SIZE).map(|at| (at % 251) as u8).collect();
        from.write(0, &data);
        assert_eq!(copy(end(from, 3), end(to, 1001), 777), Ok(()));
        let mut got = vec![0; PAGE_SIZE];
        to.read(0, &mut got);
        assert_eq!(got[1001..1778], data[3..780]);
        assert!(
            got[..1001]
                .iter()
                .chain(&got[1778..])
                .all(|&byte| byte == 0)
        );
        assert_eq!(copy(end(from, 0), end(to, 0), 4096), Ok(()));
        to.read(0, &mut got);
        assert_eq!(got, data);
    }

    #[test]
    fn neither_page_nor_part_is_left() {
        let page = leaked_page();
        for (from, to, length) in [(1, 0, 4096), (0, 1, 4096), (4096, 0, 1), (0xFFFF, 0, 1)] {
            let result = copy(end(page, from), end(page, to), length);
            assert_eq!(result, Err(Status::BadCopyArg), "{from} {to} {length}");
        }
        let part = |offset| End {
            range: Range {
                offset: 100,
                length: 50,
            },
            ..end(page, offset)
        };
        assert_eq!(copy(part(100), end(page, 0), 50), Ok(()));
        assert_eq!(copy(end(page, 0), part(149), 1), Ok(()));
        for (offset, length) in [(99, 1), (100, 51), (150, 1), (0, 0)] {
            let result = copy(part(offset), end(page, 0), length);
            assert_eq!(result, Err(Status::GeneralError), "{offset} {length}");
        }
    }
}
