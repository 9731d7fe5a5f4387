//! Memory that the hypervisor keeps while domains are there, by its debug keys.

use anyhow::{Context, Result};

use super::shell::Shell;
use super::stack::Stack;

/// What the hypervisor says of memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Free frames of the machine, in bytes.
    free: u64,
    /// Bytes in use of the part of the image that small blocks come from.
    small: u64,
    /// Memory of all domains, in bytes.
    domains: u64,
    /// Tables of dom0's guest-physical map, in bytes: it grows when dom0's tools map others' pages.
    dom0_tables: u64,
    /// Tables of all other domains' maps, in bytes, where the hypervisor tells them from what else it keeps for a domain.
    tables: Option<u64>,
}

impl Kept {
    /// Once what earlier guests gave back is scrubbed, as it is long before somebody types the next command.
    pub fn now(shell: &mut Shell, stack: &Stack) -> Result<Self> {
        type Parse = fn(&str) -> Option<Kept>;
        // Xen forgets a key if the next one comes before it has got to it.
        let (keys, parse): (&[_], Parse) = match stack {
            Stack::Oxen => {
                shell.wait_for("ox info | grep -q '^scrub_pages *: 0$'", 1)?;
                (&[("dm", " bytes used, ")], Self::parse)
            }
            Stack::Xen(_) => (
                &[("q", "Notifying guest "), ("m", "Dom heap: ")],
                Self::parse_xen,
            ),
        };
        let mut text = String::new();
        for (keys, end) in keys {
            text += &shell.debug_keys(keys, end)?;
        }
        parse(&text).with_context(|| format!("the hypervisor does not tell of memory: {text}"))
    }

    /// What of so many bytes is neither free nor a domain's.
    pub fn of(&self, total: u64) -> u64 {
        total.saturating_sub(self.free + self.domains)
    }

    /// Bytes more than at an earlier moment that are neither free nor a domain's memory nor a table of a map: control blocks,
    /// pages for local APICs, grant tables, and all smaller things.
    pub fn since(&self, before: &Self) -> u64 {
        let kept = |at: &Self| {
            i128::from(at.small)
                - [at.free, at.domains, at.dom0_tables, at.tables.unwrap_or(0)]
                    .map(i128::from)
                    .iter()
                    .sum::<i128>()
        };
        u64::try_from(kept(self) - kept(before)).unwrap_or(0)
    }

    /// Bytes of tables of domains other than dom0 more than at an earlier moment, where that is told.
    pub fn tables_since(&self, before: &Self) -> Option<u64> {
        Some(self.tables?.saturating_sub(before.tables?))
    }

    /// `domain N: N KiB, N table pages` for each, and `N of N KiB free; small heap: N bytes used, N free`.
    fn parse(text: &str) -> Option<Self> {
        let number = |line: &str, behind: &str| -> Option<u64> {
            let (before, _) = line.split_once(behind)?;
            before.rsplit(' ').next()?.parse().ok()
        };
        let memory = text.lines().find(|line| line.contains("small heap:"))?;
        let (mut domains, mut dom0_tables, mut tables) = (0, 0, 0);
        for line in text.lines().filter(|line| line.contains(" table pages")) {
            domains += number(line, " KiB,")? << 10;
            let bytes = number(line, " table pages")? << 12;
            if line.contains("domain 0:") {
                dom0_tables += bytes;
            } else {
                tables += bytes;
            }
        }
        (domains > 0).then_some(())?;
        Some(Self {
            free: number(memory, " of ")? << 10,
            small: number(memory, " bytes used")?,
            domains,
            dom0_tables,
            tables: Some(tables),
        })
    }
}

impl Kept {
    /// Xen's: `nr_pages=N` for each domain; `Xen heap: NkB free`, `Dom heap: NkB free`, perhaps `DMA heap: NkB free`. It does not tell tables of maps from what
    /// else it keeps for a domain.
    fn parse_xen(text: &str) -> Option<Self> {
        let number = |line: &str, before: &str| -> Option<u64> {
            let digits = line.split_once(before)?.1;
            let end = digits.find(|c: char| !c.is_ascii_digit());
            digits[..end.unwrap_or(digits.len())].parse().ok()
        };
        let all = |before| text.lines().filter_map(move |line| number(line, before));
        let pages: u64 = all(" nr_pages=").sum();
        all("Dom heap: ").next()?;
        (pages > 0).then_some(Self {
            free: all(" heap: ").sum::<u64>() << 10,
            small: 0,
            domains: pages << 12,
            dom0_tables: 0,
            tables: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xen_tells_free_memory_in_two_heaps_and_domains_in_pages() {
        let text = "(XEN) [00aa] General information for domain 0:\n\
            (XEN) [00aa]     nr_pages=131072 xenheap_pages=2 shared_pages=0\n\
            (XEN) [00aa]     nr_pages=1 xenheap_pages=6\n\
            (XEN) [00ab]     Xen heap: 8kB free\n\
            (XEN) [00ab]     heap[14]: 16128kB free\n\
            (XEN) [00ac]     Dom heap: 16384kB free\n";
        let kept = Kept::parse_xen(text).expect("all lines are there");
        assert_eq!(kept.free, 16392 << 10);
        assert_eq!(kept.domains, 131_073 << 12);
        assert_eq!(kept.of((16392 << 10) + (131_073 << 12) + 4096), 4096);
        assert_eq!(Kept::parse_xen("    nr_pages=1 x\n"), None);
    }

    const BEFORE: &str = "(oxen) domain 0: 1000 KiB, 16 table pages\n\
        (oxen) vcpu 0 on cpu 0: up, Running, timer None, upcall false\n\
        (oxen) 5000 of 9000 KiB free; small heap: 300 bytes used, 700 free\n";

    #[test]
    fn a_domains_cost_is_neither_its_memory_nor_its_tables() {
        let before = Kept::parse(BEFORE).expect("both lines are there");
        assert_eq!((before.dom0_tables, before.tables), (16 << 12, Some(0)));
        let after = Kept {
            free: before.free - (100 << 10) - (5 << 12) - 8192,
            small: before.small + 50,
            domains: before.domains + (100 << 10),
            dom0_tables: before.dom0_tables + (2 << 12),
            tables: Some(3 << 12),
        };
        assert_eq!(after.since(&before), 8192 + 50);
        assert_eq!(after.tables_since(&before), Some(3 << 12));
    }

    #[test]
    fn a_text_without_domains_is_no_answer() {
        assert_eq!(
            Kept::parse("1 of 2 KiB free; small heap: 3 bytes used, 4 free\n"),
            None
        );
    }
}
