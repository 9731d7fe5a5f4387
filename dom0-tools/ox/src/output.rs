//! Tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// Prints a table without borders, as xl's are: names to the left, numbers to the right.
pub fn table(
    out: &mut dyn Write,
    header: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // Blanks at the end of lines and before the first column are of no use to anybody.
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints JSON and a newline.
pub fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Seconds with one digit behind the point.
pub fn seconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds / 100_000_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
