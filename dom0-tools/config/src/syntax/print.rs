//! Text from assignments: what is printed reads back as the same assignments.

use std::fmt;

use super::value::{Assignment, Document, Operator, Value};

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => out.write_str(number),
            Value::Text(text) => quote(out, text),
            Value::List(items) => {
                out.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    out.write_str(if index == 0 { " " } else { ", " })?;
                    item.value.fmt(out)?;
                }
                out.write_str(" ]")
            }
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Set => "=",
            Operator::Append => "+=",
        };
        write!(out, "{} {operator} {}", self.key, self.item.value)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.assignments
            .iter()
            .try_for_each(|assignment| writeln!(out, "{assignment}"))
    }
}

fn quote(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    out.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(out, "\\{letter}")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            control if control.is_ascii_control() => write!(out, "\\x{:02x}", control as u32)?,
            other => write!(out, "{other}")?,
        }
    }
    out.write_str("\"")
}
