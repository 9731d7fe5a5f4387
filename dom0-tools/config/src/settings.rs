//! The values that keys have after all assignments were applied.

use crate::error::{ConfigError, Position, Source};
use crate::syntax::{Document, Item, Operator, Value};

/// A key, its value and the place of its last assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// Which text assigned it last.
    pub source_name: Source,
    /// Where the key stands there.
    pub position: Position,
    /// The value.
    pub item: Item,
}

impl Setting {
    /// An error about this setting, at its value.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.error_at(self.item.position, message)
    }

    /// An error about this setting, at a place inside its value.
    pub fn error_at(&self, position: Position, message: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.source_name, position, message).key(&self.key)
    }
}

/// All settings, in the order in which the keys first appeared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    /// The setting of a key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.key == key)
    }

    /// Every setting.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// Applies assignments in order: `=` replaces, `+=` lengthens. Returns what could not be applied.
    pub fn apply(&mut self, document: Document) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let source_name = document.source_name;
        for assignment in document.assignments {
            let new = Setting {
                key: assignment.key,
                source_name: source_name.clone(),
                position: assignment.position,
                item: assignment.item,
            };
            let Some(old) = self.0.iter_mut().find(|old| old.key == new.key) else {
                self.0.push(new);
                continue;
            };
            match assignment.operator {
                Operator::Set => *old = new,
                Operator::Append => errors.extend(append(old, new).err()),
            }
        }
        errors
    }
}

fn append(old: &mut Setting, new: Setting) -> Result<(), ConfigError> {
    let (before, after) = (old.item.value.kind(), new.item.value.kind());
    match (&mut old.item.value, &new.item.value) {
        (Value::List(old), Value::List(more)) => old.extend(more.iter().cloned()),
        (Value::Text(old), Value::Text(more)) => old.push_str(more),
        _ => {
            return Err(new
                .error(format!("+= cannot join {after} to {before}"))
                .help(
                    "+= joins a list to a list or a string to a string; replace the value with =",
                ));
        }
    }
    old.source_name = new.source_name;
    old.position = new.position;
    old.item.position = new.item.position;
    Ok(())
}
