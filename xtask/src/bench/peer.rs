//! Two hypervisors' figures side by side: which of ours has a counterpart, and which is not at most half of it.

use std::fmt::Write as _;

use super::report::{Row, grouped};

/// The hypervisor to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Debian 12's own Xen 4.17, with the same dom0 kernel and the same guests
    Xen,
}

/// Below this, nothing leaves the guest: both figures are those of the instruction itself.
const NO_EXIT: u64 = 50;

/// Puts the peer's figures beside ours, as baselines, by name. A row that the peer has no counterpart of keeps none.
pub(super) fn join(ours: &mut [Row], peers: &[Row]) {
    for row in ours {
        let counterpart = peers
            .iter()
            .find(|peer| peer.name == row.name && peer.unit == row.unit);
        row.baseline = counterpart.map(|peer| peer.median);
    }
}

/// Rows that are over half of their baseline.
pub(super) fn misses(rows: &[Row]) -> Vec<&Row> {
    rows.iter()
        .filter(|row| {
            let over = |baseline| row.median.saturating_mul(2) > baseline;
            let exits = |baseline| row.median > NO_EXIT || baseline > NO_EXIT;
            row.baseline
                .is_some_and(|baseline| over(baseline) && exits(baseline))
        })
        .collect()
}

/// What the report says of them, in Markdown.
pub(super) fn verdict(rows: &[Row], peer: &str) -> String {
    let compared = rows.iter().filter(|row| row.baseline.is_some()).count();
    let misses = misses(rows);
    let mut text = format!(
        "\nThe baseline is {peer}. Of {compared} rows that it has too, {} are at most half of its figure or leave no guest; these are not:\n\n",
        compared - misses.len()
    );
    if misses.is_empty() {
        text += "(none)\n";
    }
    for row in misses {
        let baseline = row.baseline.unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "- {}: {} of {} {} ({:.3})",
            row.name,
            grouped(row.median),
            grouped(baseline),
            row.unit,
            row.median as f64 / baseline.max(1) as f64,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, unit: &'static str, median: u64) -> Row {
        Row {
            name: name.into(),
            machine: "bochs".into(),
            unit,
            median,
            max: median,
            baseline: None,
        }
    }

    fn joined() -> Vec<Row> {
        let mut ours = vec![
            row("half", "ticks", 450),
            row("more", "ticks", 451),
            row("no exit", "ticks", 3),
            row("only we exit", "ticks", 300),
            row("only ours", "ticks", 100),
            row("another unit", "ticks", 100),
        ];
        let theirs = [
            row("more", "ticks", 900),
            row("half", "ticks", 900),
            row("no exit", "ticks", 3),
            row("only we exit", "ticks", 3),
            row("another unit", "bytes", 1),
            row("only theirs", "ticks", 1),
        ];
        join(&mut ours, &theirs);
        ours
    }

    #[test]
    fn rows_are_joined_by_name_and_unit_whatever_their_order() {
        let baselines: Vec<_> = joined().iter().map(|row| row.baseline).collect();
        assert_eq!(
            baselines,
            [Some(900), Some(900), Some(3), Some(3), None, None]
        );
    }

    #[test]
    fn every_row_over_half_is_told_unless_neither_leaves_the_guest() {
        let rows = joined();
        let names: Vec<_> = misses(&rows).iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["more", "only we exit"]);
    }

    #[test]
    fn the_verdict_counts_rows_and_names_those_that_miss() {
        let text = verdict(&joined(), "Xen 4.17");
        assert!(text.contains("Of 4 rows that it has too, 2 are"), "{text}");
        assert!(text.contains("- more: 451 of 900 ticks (0.501)"), "{text}");
        assert!(!text.contains("half: "), "{text}");
    }

    #[test]
    fn a_baseline_of_nothing_is_a_miss_and_no_panic() {
        let mut ours = vec![row("memory", "KiB", 100)];
        join(&mut ours, &[row("memory", "KiB", 0)]);
        assert_eq!(misses(&ours).len(), 1);
        assert!(verdict(&ours, "Xen").contains("100 of 0 KiB"));
    }
}
