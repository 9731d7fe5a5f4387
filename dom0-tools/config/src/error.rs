//! Errors and warnings that say where the text is wrong and what to write instead.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A place in a text; both numbers count from 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.line, self.column)
    }
}

/// Which text a place is in: a file's path, or the command line.
pub type Source = Arc<str>;

/// Something in a configuration that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct ConfigError {
    /// File, or "command line".
    pub source_name: Source,
    /// Where in it.
    pub position: Position,
    /// The key concerned, where one is known.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error at a place, without key or help yet.
    pub fn new(source_name: &Source, position: Position, message: impl Into<String>) -> Self {
        Self {
            source_name: source_name.clone(),
            position,
            key: None,
            message: message.into(),
            help: None,
        }
    }

    /// Names the key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: ", self.source_name, self.position)?;
        if let Some(key) = &self.key {
            write!(out, "{key}: ")?;
        }
        out.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(out, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the text; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct Errors(pub Vec<ConfigError>);

impl fmt::Display for Errors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

/// A setting that is accepted though it has no effect; the same shape as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning(pub ConfigError);

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
