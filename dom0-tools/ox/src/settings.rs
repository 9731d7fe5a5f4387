//! What `/etc/oxen/ox.conf` says about `ox` itself.

use std::io::ErrorKind;
use std::path::Path;

use oxen_builder::KernelCache;
use oxen_config::ToolsConfig;

use crate::failure::Failure;

/// Where the file is; without it the defaults hold.
const FILE: &str = "/etc/oxen/ox.conf";

/// Where unpacked kernels are kept, if they are.
pub fn kernel_cache() -> Result<Option<KernelCache>, Failure> {
    let config = read(Path::new(FILE))?;
    let bytes = u64::from(config.kernel_cache_mib) << 20;
    Ok((bytes > 0).then(|| KernelCache::new(config.kernel_cache, bytes)))
}

fn read(file: &Path) -> Result<ToolsConfig, Failure> {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(ToolsConfig::parse(&name, &text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(ToolsConfig::default()),
        Err(error) => Err(Failure::ConfigUse(format!("cannot read {name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_defaults_hold_and_a_wrong_one_is_named() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("ox.conf");
        assert_eq!(read(&file).ok(), Some(ToolsConfig::default()));
        std::fs::write(&file, "kernel_cache_mib = 7")?;
        assert_eq!(
            read(&file).map(|config| config.kernel_cache_mib).ok(),
            Some(7)
        );
        std::fs::write(&file, "kernel_cache_mb = 7")?;
        let failure = read(&file).expect_err("an unknown key");
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("ox.conf:1:1: kernel_cache_mb"));
        Ok(())
    }

    #[test]
    fn the_file_in_dom0s_image_says_what_holds_without_it() {
        let text = include_str!("../../../boot/dom0/etc/oxen/ox.conf");
        assert_eq!(
            ToolsConfig::parse(FILE, text).ok(),
            Some(ToolsConfig::default())
        );
    }
}
