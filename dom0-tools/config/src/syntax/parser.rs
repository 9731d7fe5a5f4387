//! Grammar of a configuration text.

use super::lexer::{Lexer, Token};
use super::value::{Assignment, Document, Item, Operator, Value};
use crate::error::{ConfigError, Errors, Position, Source};

/// How deep lists may lie in lists; xl's keys need two levels.
pub const MAX_LIST_DEPTH: usize = 8;

/// More errors than this are not collected: the text is then not a configuration at all.
const MAX_ERRORS: usize = 20;

/// Reads a text; `source` names it in errors.
///
/// # Errors
/// Each line that is no assignment, up to twenty of them.
pub fn parse(source: &str, text: &str) -> Result<Document, Errors> {
    let source_name = Source::from(source);
    let mut parser = Parser {
        source_name: &source_name,
        lexer: Lexer::new(&source_name, text),
        ahead: None,
    };
    let mut assignments = Vec::new();
    let mut errors = Vec::new();
    loop {
        match parser.statement() {
            Ok(Some(assignment)) => assignments.push(assignment),
            Ok(None) => break,
            Err(error) => {
                errors.push(error);
                if errors.len() == MAX_ERRORS {
                    break;
                }
                parser.recover();
            }
        }
    }
    if errors.is_empty() {
        Ok(Document {
            source_name,
            assignments,
        })
    } else {
        Err(Errors(errors))
    }
}

/// Reads a word of the command line: one or more assignments, as in a file.
///
/// The shell eats quotes, so `name=web1` or `extra=console=hvc0` would fail in a file's grammar: such a word is taken as a string.
///
/// # Errors
/// As [`parse`]; the source is "command line".
pub fn parse_word(word: &str) -> Result<Document, Errors> {
    const SOURCE: &str = "command line";
    let failure = match parse(SOURCE, word) {
        Ok(document) if !document.assignments.is_empty() => return Ok(document),
        Ok(_) => Errors(vec![ConfigError::new(
            &Source::from(SOURCE),
            Position { line: 1, column: 1 },
            format!("{word:?} is not KEY=VALUE"),
        )]),
        Err(errors) => errors,
    };
    let Some((key, value)) = word.split_once('=') else {
        return Err(failure);
    };
    let (key, operator) = match key.strip_suffix('+') {
        Some(key) => (key.trim(), Operator::Append),
        None => (key.trim(), Operator::Set),
    };
    let plain_key = !key.is_empty()
        && key
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !plain_key || value.contains(['"', '\'', '[', ']', ';', '\n', '\0']) || value.is_empty() {
        return Err(failure);
    }
    let position = Position { line: 1, column: 1 };
    Ok(Document {
        source_name: Source::from(SOURCE),
        assignments: vec![Assignment {
            key: key.to_owned(),
            position,
            operator,
            item: Item {
                position,
                value: Value::Text(value.trim().to_owned()),
            },
        }],
    })
}

struct Parser<'a> {
    source_name: &'a Source,
    lexer: Lexer<'a>,
    ahead: Option<(Position, Token)>,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<(Position, Token), ConfigError> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }

    fn next_in_list(&mut self) -> Result<(Position, Token), ConfigError> {
        loop {
            let (position, token) = self.next()?;
            if token != Token::Newline {
                return Ok((position, token));
            }
        }
    }

    fn expected(&self, what: &str, position: Position, found: &Token) -> ConfigError {
        ConfigError::new(
            self.source_name,
            position,
            format!("expected {what}, found {}", found.describe()),
        )
    }

    /// Goes to the start of the next line.
    fn recover(&mut self) {
        if !matches!(self.ahead.take(), Some((_, Token::Newline | Token::End))) {
            self.lexer.skip_line();
        }
    }

    /// The next assignment, or `None` at the end.
    fn statement(&mut self) -> Result<Option<Assignment>, ConfigError> {
        let (position, key) = loop {
            match self.next()? {
                (_, Token::Newline | Token::Semicolon) => {}
                (_, Token::End) => return Ok(None),
                (position, Token::Name(key)) => break (position, key),
                (position, other) => return Err(self.expected("a key", position, &other)),
            }
        };
        self.assignment(position, &key)
            .map(Some)
            .map_err(|error| error.key(&key))
    }

    fn assignment(&mut self, position: Position, key: &str) -> Result<Assignment, ConfigError> {
        let operator = match self.next()? {
            (_, Token::Set) => Operator::Set,
            (_, Token::Append) => Operator::Append,
            found => return Err(self.wrong("\"=\" or \"+=\" after the key", found)),
        };
        let item = match self.next()? {
            (position, Token::Open) => self.list(position, 1)?,
            token => self.atom(token)?,
        };
        match self.next()? {
            (_, Token::Newline | Token::Semicolon) => {}
            end @ (_, Token::End) => self.ahead = Some(end),
            found => {
                return Err(self
                    .wrong("the end of the line after the value", found)
                    .help("put several assignments on one line with \";\" between them"));
            }
        }
        Ok(Assignment {
            key: key.to_owned(),
            position,
            operator,
            item,
        })
    }

    // A newline that was not expected must be seen by `recover`, or the line after the wrong one is lost.
    fn wrong(&mut self, what: &str, (position, found): (Position, Token)) -> ConfigError {
        let mut error = self.expected(what, position, &found);
        if let Token::Name(name) = &found {
            error = error.help(format!("a string needs quotes: \"{name}\""));
        }
        if matches!(found, Token::Newline | Token::End) {
            self.ahead = Some((position, found));
        }
        error
    }

    fn atom(&mut self, token: (Position, Token)) -> Result<Item, ConfigError> {
        let (position, value) = match token {
            (position, Token::Text(text)) => (position, Value::Text(text)),
            (position, Token::Number(number)) => (position, Value::Number(number)),
            found => return Err(self.wrong("a number, a string or a list", found)),
        };
        Ok(Item { position, value })
    }

    /// A list whose `[` has been read.
    fn list(&mut self, position: Position, depth: usize) -> Result<Item, ConfigError> {
        if depth > MAX_LIST_DEPTH {
            return Err(ConfigError::new(
                self.source_name,
                position,
                format!("lists lie deeper than {MAX_LIST_DEPTH} levels in each other"),
            ));
        }
        let mut items = Vec::new();
        loop {
            match self.next_in_list()? {
                (_, Token::Close) => break,
                (inner, Token::Open) => items.push(self.list(inner, depth + 1)?),
                (end, Token::End) => {
                    self.ahead = Some((end, Token::End));
                    return Err(self.unclosed(position));
                }
                token => items.push(self.atom(token)?),
            }
            match self.next_in_list()? {
                (_, Token::Comma) => {}
                (_, Token::Close) => break,
                (end, Token::End) => {
                    self.ahead = Some((end, Token::End));
                    return Err(self.unclosed(position));
                }
                found => return Err(self.wrong("\",\" or \"]\" in the list", found)),
            }
        }
        Ok(Item {
            position,
            value: Value::List(items),
        })
    }

    fn unclosed(&self, position: Position) -> ConfigError {
        ConfigError::new(self.source_name, position, "this list is not closed")
            .help("end it with \"]\"")
    }
}
