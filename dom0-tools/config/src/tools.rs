//! The tools' own configuration, `/etc/oxen/ox.conf`, in the same syntax as those of domains.

use std::path::PathBuf;

use crate::error::Errors;
use crate::keys::nearest_of;
use crate::read::Reader;
use crate::settings::Settings;
use crate::syntax;

/// Most that the cache of kernels can be given, in MiB.
const LARGEST_CACHE_MIB: u32 = 1 << 20;
const KERNEL_CACHE: &str = "kernel_cache";
const KERNEL_CACHE_MIB: &str = "kernel_cache_mib";
/// All keys there are.
const KEYS: [&str; 2] = [KERNEL_CACHE, KERNEL_CACHE_MIB];

/// What the tools' configuration says, or what is meant where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolsConfig {
    /// `kernel_cache`: where unpacked kernels are kept.
    pub kernel_cache: PathBuf,
    /// `kernel_cache_mib`: how much of them is kept, in MiB; 0 keeps none.
    pub kernel_cache_mib: u32,
}

impl Default for ToolsConfig {
    fn default() -> Self {
        Self {
            kernel_cache: PathBuf::from("/var/cache/oxen/kernels"),
            // Three of a distribution's kernels.
            kernel_cache_mib: 192,
        }
    }
}

impl ToolsConfig {
    /// Reads the text of a file named `source`.
    ///
    /// # Errors
    /// All that is wrong with it, unknown keys too.
    pub fn parse(source: &str, text: &str) -> Result<Self, Errors> {
        let mut settings = Settings::default();
        let mut errors = settings.apply(syntax::parse(source, text)?);
        for setting in settings.iter() {
            if KEYS.contains(&setting.key.as_str()) {
                continue;
            }
            let error = setting.error_at(setting.position, "unknown key");
            errors.push(match nearest_of(&setting.key, KEYS.into_iter()) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => error.help(format!("the keys are {}", KEYS.join(", "))),
            });
        }
        let mut reader = Reader::new(&settings);
        let default = Self::default();
        let kernel_cache = match reader.text(KERNEL_CACHE).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => {
                reader.refuse(KERNEL_CACHE, "is no absolute path", "begin it with /");
                path
            }
            path => path.unwrap_or(default.kernel_cache),
        };
        let kernel_cache_mib = reader.number(KERNEL_CACHE_MIB, 0, LARGEST_CACHE_MIB);
        errors.extend(reader.errors);
        if !errors.is_empty() {
            errors.sort_by_key(|error| error.position);
            return Err(Errors(errors));
        }
        Ok(Self {
            kernel_cache,
            kernel_cache_mib: kernel_cache_mib.unwrap_or(default.kernel_cache_mib),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        let parsed = ToolsConfig::parse("ox.conf", "# nothing\n");
        assert_eq!(parsed, Ok(ToolsConfig::default()));
    }

    #[test]
    fn keys_are_read() {
        let text = "kernel_cache = \"/run/kernels\"; kernel_cache_mib = 0";
        let expected = ToolsConfig {
            kernel_cache: "/run/kernels".into(),
            kernel_cache_mib: 0,
        };
        assert_eq!(ToolsConfig::parse("ox.conf", text), Ok(expected));
    }

    #[test]
    fn all_that_is_wrong_is_named_with_its_place() {
        let text =
            "kernel_cash = \"/run\"\nkernel_cache = \"run\"\nkernel_cache_mib = \"-1\"\nx=1\n";
        let errors = ToolsConfig::parse("ox.conf", text).expect_err("four errors");
        assert_eq!(
            errors.to_string(),
            "ox.conf:1:1: kernel_cash: unknown key; did you mean \"kernel_cache\"?\n\
             ox.conf:2:16: kernel_cache: is no absolute path; begin it with /\n\
             ox.conf:3:20: kernel_cache_mib: -1 is not between 0 and 1048576\n\
             ox.conf:4:1: x: unknown key; the keys are kernel_cache, kernel_cache_mib"
        );
    }
}
