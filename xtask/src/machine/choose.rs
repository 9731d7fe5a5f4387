//! Which machine to take, and whether nested VT-x really works here.

use std::fmt;
use std::fs;

use clap::ValueEnum;

/// An emulated machine that Oxen boots on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// QEMU with KVM: VT-x on real silicon, nested.
    Kvm,
    /// Bochs: VT-x by emulation.
    Bochs,
    /// QEMU's own emulation: AMD-V.
    Tcg,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Bochs => "bochs",
            Self::Tcg => "tcg",
        })
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// `kvm` where nested VT-x really works, else `tcg`
    #[default]
    Auto,
    /// QEMU with KVM: VT-x on real silicon
    Kvm,
    /// Bochs: VT-x anywhere, slow
    Bochs,
    /// QEMU's own emulation: AMD-V anywhere
    Tcg,
}

/// The machine taken, and why, for one line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The machine.
    pub kind: Kind,
    /// Why it was taken.
    pub why: String,
}

/// Settles on a machine. An explicit `kvm` is taken only where it works.
///
/// # Errors
/// When `kvm` was asked for and does not work here: the reason, and what to do.
pub fn choose(choice: Choice) -> Result<Chosen, String> {
    let asked = |kind| {
        Ok(Chosen {
            kind,
            why: "as asked".into(),
        })
    };
    match choice {
        Choice::Bochs => asked(Kind::Bochs),
        Choice::Tcg => asked(Kind::Tcg),
        Choice::Kvm => match kvm_usable() {
            Ok(()) => asked(Kind::Kvm),
            Err(why) => Err(format!(
                "machine kvm does not work here: {why}; use --machine tcg or --machine bochs"
            )),
        },
        Choice::Auto => Ok(match kvm_usable() {
            Ok(()) => Chosen {
                kind: Kind::Kvm,
                why: "nested VT-x works here".into(),
            },
            Err(why) => Chosen {
                kind: Kind::Tcg,
                why: format!("no kvm: {why}"),
            },
        }),
    }
}

/// Whether a guest of this host's KVM gets VT-x. A `/dev/kvm` node alone proves nothing.
///
/// # Errors
/// What is missing.
pub fn kvm_usable() -> Result<(), String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let nested = fs::read_to_string("/sys/module/kvm_intel/parameters/nested").ok();
    kvm_verdict(&cpuinfo, nested.as_deref(), || {
        fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
    })
}

fn kvm_verdict(
    cpuinfo: &str,
    nested: Option<&str>,
    open_device: impl FnOnce() -> std::io::Result<()>,
) -> Result<(), String> {
    let has_vmx = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx"));
    if !has_vmx {
        return Err("the CPU flags in /proc/cpuinfo have no vmx".into());
    }
    match nested.map(str::trim) {
        Some("Y" | "1") => {}
        Some(other) => {
            return Err(format!(
                "/sys/module/kvm_intel/parameters/nested is {other}, not Y"
            ));
        }
        None => return Err("the module kvm_intel is not loaded".into()),
    }
    open_device().map_err(|error| format!("/dev/kvm cannot be opened: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "flags\t\t: fpu vme vmx sse\n";

    #[test]
    fn kvm_needs_vmx_and_nested_and_the_device() {
        let opens = || Ok(());
        assert_eq!(kvm_verdict(INTEL, Some("Y\n"), opens), Ok(()));
        assert_eq!(kvm_verdict(INTEL, Some("1\n"), opens), Ok(()));
        assert!(kvm_verdict(INTEL, Some("N\n"), opens).is_err());
        assert!(kvm_verdict(INTEL, None, opens).is_err());
        assert!(kvm_verdict("flags\t\t: fpu svm vmx_like\n", Some("Y"), opens).is_err());
        assert!(
            kvm_verdict(INTEL, Some("Y"), || Err(
                std::io::ErrorKind::PermissionDenied.into()
            ))
            .is_err()
        );
    }

    #[test]
    fn the_device_is_not_touched_where_the_cpu_lacks_vmx() {
        let verdict = kvm_verdict("flags : svm\n", Some("Y"), || panic!("opened /dev/kvm"));
        assert!(verdict.is_err());
    }
}
