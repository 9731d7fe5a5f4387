//! Words of a configuration text.

use crate::error::{ConfigError, Position, Source};

/// A word of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Number(String),
    Text(String),
    Set,
    Append,
    Open,
    Close,
    Comma,
    /// A newline or `;`; only the newline is allowed inside a list.
    Newline,
    Semicolon,
    End,
}

impl Token {
    /// The token as a message names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Name(name) => format!("the bare word {name:?}"),
            Token::Number(number) => format!("the number {number}"),
            Token::Text(_) => "a string".to_owned(),
            Token::Set => "\"=\"".to_owned(),
            Token::Append => "\"+=\"".to_owned(),
            Token::Open => "\"[\"".to_owned(),
            Token::Close => "\"]\"".to_owned(),
            Token::Comma => "\",\"".to_owned(),
            Token::Newline => "the end of the line".to_owned(),
            Token::Semicolon => "\";\"".to_owned(),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// Cuts a text into tokens, with their places.
pub(super) struct Lexer<'a> {
    source_name: &'a Source,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    here: Position,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source_name: &'a Source, text: &'a str) -> Self {
        Self {
            source_name,
            rest: text.chars().peekable(),
            here: Position { line: 1, column: 1 },
        }
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.here.line = self.here.line.saturating_add(1);
            self.here.column = 1;
        } else {
            self.here.column = self.here.column.saturating_add(1);
        }
        Some(next)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn error(&self, position: Position, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.source_name, position, message)
    }

    fn word(&mut self, first: char, belongs: impl Fn(char) -> bool) -> String {
        let mut word = String::from(first);
        while let Some(next) = self.peek().filter(|next| belongs(*next)) {
            word.push(next);
            self.bump();
        }
        word
    }

    /// Skips to the newline, so that the next line can be looked at after an error; the newline itself stays.
    pub(super) fn skip_line(&mut self) {
        while self.peek().is_some_and(|next| next != '\n') {
            self.bump();
        }
    }

    /// The next token and its place.
    pub(super) fn next(&mut self) -> Result<(Position, Token), ConfigError> {
        while self
            .peek()
            .is_some_and(|next| matches!(next, ' ' | '\t' | '\r'))
        {
            self.bump();
        }
        let position = self.here;
        let Some(first) = self.bump() else {
            return Ok((position, Token::End));
        };
        let token = match first {
            '\n' => Token::Newline,
            ';' => Token::Semicolon,
            '#' => {
                self.skip_line();
                return self.next_after_comment();
            }
            ',' => Token::Comma,
            '[' => Token::Open,
            ']' => Token::Close,
            '=' => Token::Set,
            '+' if self.peek() == Some('=') => {
                self.bump();
                Token::Append
            }
            '\'' | '"' => Token::Text(self.string(position, first)?),
            '0'..='9' => Token::Number(self.word(first, |next| next.is_ascii_alphanumeric())),
            letter if letter.is_ascii_alphabetic() || letter == '_' => {
                Token::Name(self.word(first, |next| {
                    next.is_ascii_alphanumeric() || matches!(next, '_' | '.')
                }))
            }
            other => {
                return Err(self
                    .error(position, format!("unexpected character {other:?}"))
                    .help("strings need quotes, as in name = \"web1\""));
            }
        };
        Ok((position, token))
    }

    // A comment ends with its line, so what follows is a newline or the end: no recursion over many comments.
    fn next_after_comment(&mut self) -> Result<(Position, Token), ConfigError> {
        let position = self.here;
        Ok((
            position,
            match self.bump() {
                Some(_) => Token::Newline,
                None => Token::End,
            },
        ))
    }

    /// The rest of a string whose opening quote has been read.
    fn string(&mut self, start: Position, quote: char) -> Result<String, ConfigError> {
        let mut bytes = Vec::new();
        loop {
            let position = self.here;
            match self.peek() {
                None | Some('\n') => {
                    return Err(self
                        .error(start, "this string is not closed on its line")
                        .help(format!("end it with {quote}")));
                }
                Some(next) => {
                    self.bump();
                    if next == quote {
                        break;
                    }
                    if next == '\\' {
                        bytes.push(self.escape(position)?);
                    } else {
                        bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
        }
        if bytes.contains(&0) {
            return Err(self.error(start, "a string cannot hold the character NUL"));
        }
        String::from_utf8(bytes)
            .map_err(|_| self.error(start, "the escapes of this string do not give UTF-8"))
    }

    /// The byte that an escape stands for; the backslash has been read.
    fn escape(&mut self, start: Position) -> Result<u8, ConfigError> {
        let wrong = |lexer: &Self| {
            lexer
                .error(start, "unknown escape in a string")
                .help("known are \\\\ \\\" \\' \\a \\b \\f \\n \\r \\t \\v \\xHH and \\OOO")
        };
        let Some(letter) = self.peek().filter(|next| *next != '\n') else {
            return Err(wrong(self));
        };
        self.bump();
        Ok(match letter {
            '\\' | '\'' | '"' => letter as u8,
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            'x' => {
                let high = self.digit(16).ok_or_else(|| wrong(self))?;
                let low = self.digit(16).ok_or_else(|| wrong(self))?;
                (high * 16 + low) as u8
            }
            '0'..='7' => {
                let mut value = letter.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    match self.digit(8) {
                        Some(digit) => value = value * 8 + digit,
                        None => break,
                    }
                }
                u8::try_from(value).map_err(|_| wrong(self))?
            }
            _ => return Err(wrong(self)),
        })
    }

    fn digit(&mut self, radix: u32) -> Option<u32> {
        let digit = self.peek()?.to_digit(radix)?;
        self.bump();
        Some(digit)
    }
}
