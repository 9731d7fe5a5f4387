//! From a configuration to a plan: files are read and checked before the hypervisor hears of anything.

use std::fs::File;
use std::path::{Path, PathBuf};

use oxen_core::kernel::PvhKernel;
use oxen_xen::domain::CreateDomain;

use crate::acpi;
use crate::cache::KernelCache;
use crate::error::BuildError;
use crate::kernel::{Kernel, open};
use crate::layout::{ACPI_START, Layout, Sizes};
use crate::start_info::{self, Contents};

const MIB: u64 = 1 << 20;
/// A guest larger than this is a typing error.
const LARGEST_MIB: u64 = 16 << 20;
/// Linux cuts longer command lines without a word.
const LONGEST_COMMAND_LINE: usize = 2047;
/// Ranges of a memory map: low RAM, tables, special pages, high RAM.
const MOST_RANGES: usize = 4;

/// What a guest is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name, for messages.
    pub name: String,
    /// UUID, vCPUs, number and limits.
    pub domain: CreateDomain,
    /// Kernel: a bzImage of any compression, or an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// Initial ramdisk.
    pub ramdisk: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Memory that it may have later, in MiB, if more than `memory_mib`.
    pub max_memory_mib: Option<u64>,
}

/// A guest that is ready to be built: files read, everything placed.
#[derive(Debug)]
pub struct Guest {
    pub(crate) domain: CreateDomain,
    pub(crate) max_memory_mib: u64,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: Kernel,
    pub(crate) ramdisk: Option<(PathBuf, File)>,
    pub(crate) layout: Layout,
    pub(crate) start_info: Vec<u8>,
    pub(crate) acpi: Vec<u8>,
    pub(crate) entry: u32,
}

impl Guest {
    /// Reads and checks everything that `config` names, and plans where it goes. A kernel that `cache` has is not unpacked.
    ///
    /// # Errors
    /// What is wrong with the configuration, the kernel or the ramdisk.
    pub fn load(config: &Config, cache: Option<&KernelCache>) -> Result<Self, BuildError> {
        check(config)?;
        let kernel = Kernel::load(&config.kernel, cache)?;
        let parsed = parse(&config.kernel, &kernel)?;
        let ramdisk = config.ramdisk.as_deref().map(open).transpose()?;
        let ramdisk_size = ramdisk.as_ref().map_or(0, |(_, size)| *size);
        let acpi = acpi::build(ACPI_START, config.domain.vcpus);
        let layout = Layout::plan(&Sizes {
            memory: config.memory_mib * MIB,
            kernel: parsed.extent(),
            start_info: start_info::size(&config.cmdline, MOST_RANGES) as u64,
            ramdisk: ramdisk_size,
            acpi: acpi.len() as u64,
        })?;
        let contents = Contents {
            command_line: &config.cmdline,
            ramdisk: &layout.ramdisk,
            memory_map: &layout.memory_map(),
            rsdp: ACPI_START,
        };
        let start_info = start_info::build(layout.start_info.start, &contents);
        Ok(Self {
            domain: config.domain.clone(),
            max_memory_mib: config.max_memory_mib.unwrap_or(0).max(config.memory_mib),
            memory_mib: config.memory_mib,
            entry: parsed.entry,
            kernel,
            ramdisk: config.ramdisk.clone().zip(ramdisk.map(|(file, _)| file)),
            layout,
            start_info,
            acpi,
        })
    }

    /// Where everything goes.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn check(config: &Config) -> Result<(), BuildError> {
    let refuse = |message: String| Err(BuildError::Config(format!("{}: {message}", config.name)));
    if config.memory_mib == 0
        || config.memory_mib.max(config.max_memory_mib.unwrap_or(0)) > LARGEST_MIB
    {
        return refuse(format!(
            "memory and maxmem are MiB, from 1 to {LARGEST_MIB}"
        ));
    }
    if config.domain.vcpus == 0 || config.domain.vcpus > acpi::MAX_VCPUS {
        return refuse(format!("a guest has 1 to {} vcpus", acpi::MAX_VCPUS));
    }
    if config.cmdline.len() > LONGEST_COMMAND_LINE || config.cmdline.contains('\0') {
        return refuse(format!(
            "the kernel command line has {} bytes; Linux takes up to {LONGEST_COMMAND_LINE}, without zero bytes",
            config.cmdline.len()
        ));
    }
    Ok(())
}

fn parse<'a>(path: &Path, file: &'a [u8]) -> Result<PvhKernel<'a>, BuildError> {
    PvhKernel::parse(file).map_err(|cause| BuildError::Kernel {
        path: path.to_owned(),
        cause,
    })
}
