//! Text of a configuration: assignments of numbers, strings and lists to keys.
//!
//! Assignments end at a newline or `;`, a `#` starts a comment, a list may go over several lines and end with a comma.

mod lexer;
mod parser;
mod print;
mod value;

pub use parser::{MAX_LIST_DEPTH, parse, parse_word};
pub use value::{Assignment, Document, Item, Operator, Value, parse_number};
