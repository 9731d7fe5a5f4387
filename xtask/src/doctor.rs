//! `cargo xtask doctor`: what this host can do.

use crate::host;
use crate::machine::kvm_usable;
use crate::provision::{self, Suite, bochs};

/// Prints a line for each thing that matters, with what to do about those that are missing.
pub fn report() {
    let missing = provision::missing_packages();
    line(
        "host packages",
        if missing.is_empty() {
            Ok("all there".into())
        } else {
            Err(format!(
                "missing: {}; cargo xtask setup installs them",
                missing.join(" ")
            ))
        },
    );
    line(
        "Rust",
        host::capture("rustc", &["--version"])
            .map(|text| text.trim().to_owned())
            .map_err(|error| error.to_string()),
    );
    line(
        "kvm (VT-x, nested)",
        kvm_usable()
            .map(|()| "works".into())
            .map_err(|error| error.to_string()),
    );
    let version = host::capture("qemu-system-x86_64", &["--version"]).unwrap_or_default();
    line(
        "tcg (AMD-V, emulated)",
        version
            .lines()
            .next()
            .map(str::to_owned)
            .ok_or_else(|| "no QEMU; cargo xtask setup installs it".into()),
    );
    let bochs = bochs::cached();
    line(
        "bochs (VT-x, emulated)",
        if bochs.exists() {
            Ok(bochs.display().to_string())
        } else {
            Err("not built yet; cargo xtask setup builds it".into())
        },
    );
    for suite in Suite::ALL {
        let folder = host::cache().join(format!("linux-{}", suite.name()));
        let version = std::fs::read_to_string(folder.join("version"));
        line(
            &format!("dom0 kernel of {}", suite.name()),
            version.map_err(|_| "not fetched yet; cargo xtask setup fetches it".into()),
        );
    }
}

fn line(what: &str, found: Result<String, String>) {
    match found {
        Ok(text) => println!("ok       {what}: {text}"),
        Err(text) => println!("missing  {what}: {text}"),
    }
}
