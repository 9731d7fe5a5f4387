//! Bootable ISOs: GRUB for BIOS and UEFI, with the hypervisor and its modules, or a bare Linux to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{host, provision};

/// A file that the loader puts into memory, with a command line of its own.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// Its command line.
    pub arguments: String,
}

/// What the ISO boots.
#[derive(Clone, Debug)]
pub enum Boot {
    /// The hypervisor, by multiboot2.
    Hypervisor {
        /// Its ELF file.
        image: PathBuf,
        /// Its command line.
        arguments: String,
        /// dom0's kernel and initial RAM disk; none at all is a way to test what happens then.
        modules: Vec<Module>,
    },
    /// A Linux kernel on the bare machine.
    Linux {
        /// Its image.
        kernel: PathBuf,
        /// Its command line.
        arguments: String,
        /// Its initial RAM disk.
        initrd: PathBuf,
    },
}

/// An ISO to be written.
#[derive(Clone, Debug)]
pub struct IsoSpec {
    /// Where it goes.
    pub output: PathBuf,
    /// What it boots.
    pub boot: Boot,
}

/// Writes the ISO.
///
/// # Errors
/// A file is missing, or GRUB's tools are.
pub fn build(spec: &IsoSpec) -> Result<PathBuf> {
    provision::packages()?;
    let tree = spec.output.with_extension("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    let mut entry = String::new();
    match &spec.boot {
        Boot::Hypervisor {
            image,
            arguments,
            modules,
        } => {
            place(image, &boot.join("oxen"))?;
            entry += &format!("    multiboot2 /boot/oxen {}\n", quoted(arguments));
            for (number, module) in modules.iter().enumerate() {
                let name = format!("module{number}");
                place(&module.path, &boot.join(&name))?;
                entry += &format!("    module2 /boot/{name} {}\n", quoted(&module.arguments));
            }
        }
        Boot::Linux {
            kernel,
            arguments,
            initrd,
        } => {
            place(kernel, &boot.join("vmlinuz"))?;
            place(initrd, &boot.join("initrd"))?;
            entry += &format!(
                "    linux /boot/vmlinuz {}\n    initrd /boot/initrd\n",
                quoted(arguments)
            );
        }
    }
    let template = fs::read_to_string(host::workspace().join("boot/grub.cfg.in"))
        .context("boot/grub.cfg.in cannot be read")?;
    fs::write(
        boot.join("grub/grub.cfg"),
        template.replace("@ENTRY@", &entry),
    )?;
    let result = host::run_quiet(
        Command::new("grub-mkrescue")
            .arg("-o")
            .arg(&spec.output)
            .arg(&tree),
    );
    fs::remove_dir_all(&tree)?;
    result.context("the ISO cannot be written; packages grub-common, grub-pc-bin, grub-efi-amd64-bin, xorriso and mtools make it")?;
    Ok(spec.output.clone())
}

/// A hard link where that is possible: kernels and RAM disks are large.
fn place(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("{} cannot be read", from.display()))?;
    }
    Ok(())
}

/// Words of a command line for GRUB's shell: what is special to it is quoted.
fn quoted(arguments: &str) -> String {
    let word = |word: &str| {
        if word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "=,.:_-/+".contains(c))
        {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    arguments
        .split_ascii_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_grub_would_interpret_are_quoted() {
        assert_eq!(
            quoted("console=com1,vga a;b $x"),
            "console=com1,vga 'a;b' '$x'"
        );
    }
}
