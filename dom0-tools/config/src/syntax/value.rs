//! What a text says, before any key has a meaning.

use crate::error::{Position, Source};

/// The value of an assignment or of a list's element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A quoted string, without its quotes and escapes.
    Text(String),
    /// A number as it was written (`256`, `0x100`, `0400`); [`parse_number`] reads it.
    Number(String),
    /// A list.
    List(Vec<Item>),
}

impl Value {
    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "a number",
            Value::List(_) => "a list",
        }
    }
}

/// A value and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Start of the value.
    pub position: Position,
    /// The value.
    pub value: Value,
}

/// How an assignment changes what a key had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`: replaces it.
    Set,
    /// `+=`: a string is lengthened, a list gets more elements.
    Append,
}

/// `KEY = VALUE` or `KEY += VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The key, known or not.
    pub key: String,
    /// Start of the key.
    pub position: Position,
    /// `=` or `+=`.
    pub operator: Operator,
    /// The value.
    pub item: Item,
}

/// All assignments of a text, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where the text came from.
    pub source_name: Source,
    /// The assignments.
    pub assignments: Vec<Assignment>,
}

/// Reads a number as C's `strtol` with base 0 does: decimal, hexadecimal after `0x`, octal after `0`; a leading `-` is allowed (only inside quotes).
pub fn parse_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (radix, digits) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    // `from_str_radix` takes a sign of its own, which would let `--1` and `0x+1` pass.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    let magnitude = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_are_decimal_hexadecimal_or_octal() {
        assert_eq!(parse_number("0"), Some(0));
        assert_eq!(parse_number("256"), Some(256));
        assert_eq!(parse_number("0x1F"), Some(31));
        assert_eq!(parse_number("010"), Some(8));
        assert_eq!(parse_number("-5"), Some(-5));
        for wrong in [
            "",
            "-",
            "--1",
            "0x",
            "0x-1",
            "08",
            "12a",
            "1 ",
            "99999999999999999999",
        ] {
            assert_eq!(parse_number(wrong), None, "{wrong:?}");
        }
    }
}
