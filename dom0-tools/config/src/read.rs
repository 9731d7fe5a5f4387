//! Reading of single settings as what a key takes.

use std::collections::BTreeSet;

use crate::error::{ConfigError, Position, Source};
use crate::settings::{Setting, Settings};
use crate::syntax::{Value, parse_number};

/// Gives typed values of settings and gathers what is wrong with them.
pub(crate) struct Reader<'a> {
    settings: &'a Settings,
    pub(crate) errors: Vec<ConfigError>,
    /// Keys that were asked for: what is honoured must be among them.
    pub(crate) asked: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            errors: Vec::new(),
            asked: BTreeSet::new(),
        }
    }

    pub(crate) fn setting(&mut self, key: &'static str) -> Option<&'a Setting> {
        self.asked.insert(key);
        self.settings.get(key)
    }

    /// The text that the first setting came from: a missing key is reported there.
    pub(crate) fn any_source(&self) -> Option<Source> {
        let first = self.settings.iter().next();
        first.map(|setting| setting.source_name.clone())
    }

    pub(crate) fn fail(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// An error at a key that is there.
    pub(crate) fn refuse(&mut self, key: &'static str, message: &str, help: &str) {
        if let Some(setting) = self.setting(key) {
            self.fail(setting.error(message).help(help));
        }
    }

    /// A string; a plain number is one too, as in xl.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let setting = self.setting(key)?;
        match &setting.item.value {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::List(_) => {
                self.fail(setting.error("must be a string, not a list"));
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn number(&mut self, key: &'static str, least: u32, most: u32) -> Option<u32> {
        let setting = self.setting(key)?;
        let number = match &setting.item.value {
            Value::Text(text) | Value::Number(text) => parse_number(text),
            Value::List(_) => None,
        };
        let Some(number) = number else {
            let error = format!("must be a number, not {}", shown(&setting.item.value));
            self.fail(setting.error(error));
            return None;
        };
        let fits = u32::try_from(number).ok();
        let fits = fits.filter(|number| (least..=most).contains(number));
        if fits.is_none() {
            let error = format!("{number} is not between {least} and {most}");
            self.fail(setting.error(error));
        }
        fits
    }

    /// The strings of a list, each with its place.
    pub(crate) fn list(
        &mut self,
        key: &'static str,
    ) -> Option<(&'a Setting, Vec<(Position, &'a str)>)> {
        let setting = self.setting(key)?;
        let Value::List(items) = &setting.item.value else {
            self.fail(
                setting
                    .error(format!("must be a list, not {}", setting.item.value.kind()))
                    .help(format!("write {key} = [ '...' ]")),
            );
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) | Value::Number(text) => {
                    texts.push((item.position, text.as_str()))
                }
                Value::List(_) => self
                    .fail(setting.error_at(item.position, "must hold strings, not another list")),
            }
        }
        Some((setting, texts))
    }

    /// One of several names.
    pub(crate) fn named<T: Copy>(
        &mut self,
        key: &'static str,
        names: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let found = names.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            let near = crate::keys::nearest_of(text, known.iter().copied());
            let help = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("it takes {}", known.join(", ")),
            };
            if let Some(setting) = self.setting(key) {
                self.fail(setting.error(format!("cannot be {text:?}")).help(help));
            }
        }
        found.map(|(_, value)| *value)
    }
}

/// A value for a message, cut to a length that a message bears.
fn shown(value: &Value) -> String {
    match value {
        Value::List(_) => value.kind().to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}
