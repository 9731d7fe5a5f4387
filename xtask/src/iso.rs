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

/// Writes the ISO: hybrid, so that a CD drive, a disk and a USB stick boot it, by BIOS and by UEFI.
///
/// # Errors
/// A file is missing, or GRUB's tools are.
pub fn build(spec: &IsoSpec) -> Result<PathBuf> {
    provision::packages()?;
    let output = std::path::absolute(&spec.output)?;
    let parent = output.parent().context("the ISO needs a file name")?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    // Beside the output, so that large files can be linked in place of being copied.
    let work = tempfile::Builder::new()
        .prefix(".iso-")
        .tempdir_in(parent)?;
    let tree = work.path().join("tree");
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    let (title, entry) = place_files(&spec.boot, &boot)?;
    let template = host::workspace().join("boot/grub.cfg.in");
    let template = fs::read_to_string(&template)
        .with_context(|| format!("{} cannot be read", template.display()))?;
    let config = template
        .replace("@TITLE@", title)
        .replace("@ENTRY@", &entry);
    fs::write(boot.join("grub/grub.cfg"), config)?;
    let image = work.path().join("image.iso");
    // Neither translations nor fonts: nothing is read from GRUB's own menu.
    host::run_quiet(
        Command::new("grub-mkrescue")
            .args(["--locales=", "--fonts=", "--themes=", "-o"])
            .arg(&image)
            .arg(&tree),
    )
    .context("the ISO cannot be written; packages grub-common, grub-pc-bin, grub-efi-amd64-bin, xorriso and mtools make it")?;
    // In one step, so that an emulator never sees half an image.
    fs::rename(&image, &output)
        .with_context(|| format!("{} cannot be written", output.display()))?;
    Ok(output)
}

/// Puts the files below `boot`; returns the title and the lines of GRUB's entry.
fn place_files(what: &Boot, boot: &Path) -> Result<(&'static str, String)> {
    let mut entry = String::new();
    match what {
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
            Ok(("Oxen", entry))
        }
        Boot::Linux {
            kernel,
            arguments,
            initrd,
        } => {
            place(kernel, &boot.join("vmlinuz"))?;
            place(initrd, &boot.join("initrd"))?;
            entry += &format!("    linux /boot/vmlinuz {}\n", quoted(arguments));
            entry += "    initrd /boot/initrd\n";
            Ok(("Linux", entry))
        }
    }
}

/// A hard link where that is possible: kernels and RAM disks are large.
fn place(from: &Path, to: &Path) -> Result<()> {
    // A link to a symbolic link would point to nowhere from here.
    let file = from
        .canonicalize()
        .with_context(|| format!("{} cannot be read", from.display()))?;
    if fs::hard_link(&file, to).is_err() {
        fs::copy(&file, to).with_context(|| format!("{} cannot be read", from.display()))?;
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
