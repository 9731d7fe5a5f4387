//! What lies under dom0 on a measured machine, and what dom0's tools are called there: Oxen, or Debian's Xen to compare with.

use std::path::PathBuf;

use anyhow::Result;

use super::{Bench, HYPERVISOR_OPTIONS, boot, module};
use crate::iso::Boot;
use crate::machine::Kind;
use crate::provision::newc::Newc;
use crate::provision::{self, Dom0, Xen};

/// What QEMU's emulated CPU must not have for Xen 4.17: a guest's IRETQ faults with SMAP on, RDTSCP dies, and XSAVE loses the
/// floating-point state. Oxen is measured on the same CPU then.
const CPU_ON_QEMU: &str = "max,-smap,-rdtscp,-xsave";
/// Bochs wants the posted-interrupt descriptor at a page's beginning, the manual only at 64 bytes: Xen goes by the manual. Both do
/// without APIC virtualization then.
const WITHOUT_APIC_VIRTUALIZATION: &str = "apicv=0";
/// The TSC before each line of Xen's, by which one sees how long its own part of the boot takes.
const XEN_TIMESTAMPS: &str = "console_timestamps=raw";

/// What a guest of Xen is configured with besides: a TSC that is no promise of the CPU's, as QEMU's, Xen would emulate, and each reading
/// of it would be part of what is measured.
const XEN_GUESTS_SETTINGS: &str = "tsc_mode='native'";

/// A hypervisor and its tools.
#[derive(Clone, Debug)]
pub(super) enum Stack {
    Oxen,
    Xen(Xen),
}

impl Stack {
    /// The command in dom0 that makes and ends guests, with the same verbs and configuration files.
    pub fn tool(&self) -> &'static str {
        match self {
            Self::Oxen => "ox",
            Self::Xen(_) => "xl",
        }
    }

    /// What every guest's configuration has here.
    pub fn settings(&self) -> &'static str {
        match self {
            Self::Oxen => "",
            Self::Xen(_) => XEN_GUESTS_SETTINGS,
        }
    }

    /// For names of files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oxen => "oxen",
            Self::Xen(_) => "xen",
        }
    }
}

impl Bench {
    /// What a run of this part is called: runs on several machines may be under way at once.
    pub(super) fn run_name(&self, part: &str) -> String {
        format!("bench-{}-{}-{part}", self.stack.name(), self.kind)
    }

    /// The CPU model where two hypervisors are compared, if the machine's own will not do.
    pub(super) fn compared_cpu(&self) -> Option<String> {
        (self.compares && self.kind == Kind::Tcg).then(|| CPU_ON_QEMU.to_owned())
    }

    /// The hypervisor's image.
    pub(super) fn image(&self) -> PathBuf {
        match &self.stack {
            Stack::Oxen => self.hypervisor.clone(),
            Stack::Xen(xen) => xen.hypervisor.clone(),
        }
    }

    /// dom0 with the tools, and these files below its root folder besides, for the run of that name.
    pub(super) fn dom0(&self, name: &str, files: Vec<(&str, Vec<u8>)>) -> Result<Dom0> {
        self.dom0_with(name, files, Vec::new())
    }

    /// The same with programs too.
    pub(super) fn dom0_with(
        &self,
        name: &str,
        files: Vec<(&str, Vec<u8>)>,
        programs: Vec<(&str, Vec<u8>)>,
    ) -> Result<Dom0> {
        let dom0 = provision::dom0(self.suite)?;
        let dom0 = match &self.stack {
            Stack::Oxen => Dom0 {
                initrd: provision::with_tools(&dom0.initrd, &dom0.kernel)?,
                ..dom0
            },
            Stack::Xen(xen) => xen.with_tools(dom0)?,
        };
        let mut archive = Newc::new();
        for (files, executable) in [(files, false), (programs, true)] {
            for (path, content) in files {
                archive.file(path.trim_start_matches('/'), content, executable);
            }
        }
        let initrd = self.folder.join(format!("{name}.initrd"));
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(&initrd, archive.behind(&dom0.initrd)?)?;
        Ok(Dom0 { initrd, ..dom0 })
    }

    /// Boots dom0 with one vCPU and so many MiB, silently.
    pub(super) fn boot(&self, dom0: &Dom0, memory: u32) -> Boot {
        let mut arguments = format!("{HYPERVISOR_OPTIONS} dom0_max_vcpus=1 dom0_mem={memory}M");
        if let Stack::Xen(_) = self.stack {
            // Xen's dom0 would get more later.
            arguments += &format!(",max:{memory}M {XEN_TIMESTAMPS}");
        }
        if self.compares {
            arguments += &format!(" {WITHOUT_APIC_VIRTUALIZATION}");
        }
        Boot::Hypervisor {
            image: self.image(),
            arguments,
            modules: vec![
                module(
                    &dom0.kernel,
                    &format!("console=hvc0 {} {}", boot::QUIET, boot::BY_WORDS),
                ),
                module(&dom0.initrd, ""),
            ],
        }
    }
}
