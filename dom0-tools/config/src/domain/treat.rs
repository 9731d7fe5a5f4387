//! What becomes of a key that the table does not simply honour.

use crate::error::{ConfigError, Warning};
use crate::keys::{self, Treatment};
use crate::settings::Setting;
use crate::syntax::{Value, parse_number};

/// Refuses or reports a key by its row in the table.
pub(super) fn treat(setting: &Setting, warnings: &mut Vec<Warning>) -> Option<ConfigError> {
    let Some(key) = keys::find(&setting.key) else {
        let error = setting.error_at(setting.position, "unknown key");
        return Some(match keys::nearest(&setting.key) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error.help("`ox config keys` lists the known ones"),
        });
    };
    match key.treatment {
        Treatment::Honoured => None,
        Treatment::Meaningless { reason } => {
            let message = format!("has no effect on a PVH domain, it concerns {reason}");
            let warning = setting.error_at(setting.position, message);
            warnings.push(Warning(warning.help("remove the line")));
            None
        }
        Treatment::Unsupported { reason, accepted } => {
            if is_accepted(&setting.item.value, accepted) {
                return None;
            }
            let error = setting.error_at(setting.position, format!("not supported: {reason}"));
            Some(match accepted {
                [] => error.help("remove the line"),
                values => error.help(format!("remove the line or write {}", values.join(" or "))),
            })
        }
    }
}

fn is_accepted(value: &Value, accepted: &[&str]) -> bool {
    match value {
        Value::List(items) => items.is_empty(),
        Value::Text(text) | Value::Number(text) => accepted.iter().any(|fine| {
            let number = parse_number(text);
            *fine == text || (number.is_some() && number == parse_number(fine))
        }),
    }
}
