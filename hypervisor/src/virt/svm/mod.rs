//! AMD-V: the second backend. Nested paging is mandatory; NRIP save, decode assists, clean bits and flush-by-ASID are
//! used where CPUID shows them and done without where not.

mod asid;
mod emulation;
mod entry;
mod exit;
mod msr;
mod vcpu;
mod vmcb;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use oxen_core::address::HostPhys;
use oxen_core::id::CpuId;

use crate::cpu::{self, MAX_CPUS};
use crate::memory::HostPages;
use crate::virt::{Backend, Missing, VcpuConfig};

pub use vcpu::SvmVcpu;

const VM_CR: u32 = 0xC001_0114;
const VM_HSAVE_PA: u32 = 0xC001_0117;
const EFER: u32 = 0xC000_0080;
const EFER_SVME: u64 = 1 << 12;

/// Optional features in use (CPUID 0x8000000A EDX).
#[derive(Clone, Copy, Debug, Default)]
struct Features {
    next_rip: bool,
    clean_bits: bool,
    flush_by_asid: bool,
    pause_filter: bool,
    /// The CPU is QEMU's emulation.
    qemu: bool,
    asids: u32,
}

/// Host save areas, one for each CPU: where VMSAVE left the host's segment state.
static HOST_AREAS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// The backend.
pub struct Svm {
    features: Features,
    msr_map: HostPages,
}

impl Backend for Svm {
    const NAME: &'static str = "AMD-V";
    type Vcpu = SvmVcpu;

    fn probe(_: bool) -> Result<Self, Missing> {
        const SVM: u32 = 1 << 2;
        const NESTED_PAGING: u32 = 1 << 0;
        const SVM_DISABLED: u64 = 1 << 4;
        let cpuid = core::arch::x86_64::__cpuid;
        if cpuid(0x8000_0000).eax < 0x8000_000A || cpuid(0x8000_0001).ecx & SVM == 0 {
            return Err(missing(
                "AMD-V (SVM, CPUID 0x80000001 ECX bit 2); enable virtualization in the firmware setup, or use a CPU that has it",
            ));
        }
        let leaf = cpuid(0x8000_000A);
        if leaf.edx & NESTED_PAGING == 0 {
            return Err(missing("nested paging (NPT, CPUID 0x8000000A EDX bit 0)"));
        }
        if leaf.ebx < 2 {
            return Err(missing(
                "address-space identifiers (ASIDs, CPUID 0x8000000A EBX)",
            ));
        }
        if cpu::msr::read_safe(VM_CR).is_some_and(|vm_cr| vm_cr & SVM_DISABLED != 0) {
            return Err(missing(
                "AMD-V: the firmware locked it off (VM_CR.SVMDIS); enable SVM in the firmware setup",
            ));
        }
        let mut msr_map = HostPages::new_zeroed(msr::MAP_SIZE / 4096)
            .ok_or_else(|| missing("memory for the MSR map"))?;
        msr::fill(msr_map.bytes_mut());
        Ok(Self {
            features: Features {
                next_rip: leaf.edx & 1 << 3 != 0,
                clean_bits: leaf.edx & 1 << 5 != 0,
                flush_by_asid: leaf.edx & 1 << 6 != 0,
                pause_filter: leaf.edx & 1 << 10 != 0,
                qemu: emulation::is_qemu(),
                asids: leaf.ebx,
            },
            msr_map,
        })
    }

    fn enable(&self, cpu: CpuId) -> Result<(), Missing> {
        let pages =
            HostPages::new_zeroed(2).ok_or_else(|| missing("memory for host save areas"))?;
        let first = pages.leak();
        let (hardware_area, our_area) = (first.address(), (first + 1).address());
        // SAFETY: SVM was found on the boot CPU and all CPUs are alike in this; both pages are given away for good.
        unsafe {
            cpu::msr::write(EFER, cpu::msr::read(EFER) | EFER_SVME);
            cpu::msr::write(VM_HSAVE_PA, hardware_area.0);
            entry::save_host(our_area);
        }
        HOST_AREAS[cpu.index()].store(our_area.0, Ordering::Release);
        Ok(())
    }

    fn new_vcpu(&self, config: VcpuConfig) -> Result<SvmVcpu, Missing> {
        SvmVcpu::new(self.features, self.msr_map.first().address(), config)
    }

    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let Features {
            next_rip,
            clean_bits,
            flush_by_asid,
            pause_filter,
            qemu,
            asids,
        } = self.features;
        write!(out, "nested paging, {asids} ASIDs")?;
        for (present, name) in [
            (next_rip, "NRIP save"),
            (clean_bits, "clean bits"),
            (flush_by_asid, "flush by ASID"),
            (pause_filter, "pause filter"),
            (qemu, "emulated by QEMU"),
        ] {
            if present {
                write!(out, ", {name}")?;
            }
        }
        Ok(())
    }
}

fn host_area(cpu: CpuId) -> HostPhys {
    HostPhys(HOST_AREAS[cpu.index()].load(Ordering::Acquire))
}

fn missing(what: &str) -> Missing {
    what.into()
}
