//! The figures as a table for people and a list for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub name: String,
    /// Where.
    pub machine: String,
    /// Of the numbers.
    pub unit: &'static str,
    /// Median of the samples, or the one there is.
    pub median: u64,
    /// Largest sample.
    pub max: u64,
    /// The same thing without the hypervisor, or on the one to compare with, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<u64>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Whose kernel dom0 had.
    pub suite: &'static str,
    pub rows: Vec<Row>,
    /// What stands below the table.
    pub verdict: String,
}

impl Report {
    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| figure | machine | unit | median | maximum | baseline | ratio |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: |\n",
        );
        for row in &self.rows {
            let (baseline, ratio) = row
                .baseline
                .map(|baseline| {
                    let ratio = row.median as f64 / baseline.max(1) as f64;
                    (grouped(baseline), format!("{ratio:.3}"))
                })
                .unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {baseline} | {ratio} |",
                row.name,
                row.machine,
                row.unit,
                grouped(row.median),
                grouped(row.max),
            );
        }
        text
    }

    /// Writes both files; returns the table's.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let table = folder.join("report.md");
        let list = folder.join("report.json");
        let text = format!(
            "# Figures of this build, with the kernel of Debian {}\n\n{}{}",
            self.suite,
            self.table(),
            self.verdict
        );
        fs::write(&table, text)
            .with_context(|| format!("{} cannot be written", table.display()))?;
        let json = serde_json::to_string_pretty(&self.rows)?;
        fs::write(&list, json + "\n")
            .with_context(|| format!("{} cannot be written", list.display()))?;
        Ok(table)
    }
}

/// Digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(baseline: Option<u64>) -> Row {
        Row {
            name: "cpuid".into(),
            machine: "bochs".into(),
            unit: "ticks",
            median: 1_234_567,
            max: 12,
            baseline,
        }
    }

    #[test]
    fn the_table_groups_digits_and_compares_with_the_baseline() {
        let report = Report {
            rows: vec![row(Some(2_469_134)), row(None)],
            ..Report::default()
        };
        let table = report.table();
        assert!(
            table.contains("| cpuid | bochs | ticks | 1,234,567 | 12 | 2,469,134 | 0.500 |"),
            "{table}"
        );
        assert!(table.contains("| 1,234,567 | 12 |  |  |"), "{table}");
    }

    #[test]
    fn a_baseline_that_was_not_measured_is_left_out() {
        let json = serde_json::to_string(&row(None)).expect("plain data");
        assert!(!json.contains("baseline"), "{json}");
    }
}
