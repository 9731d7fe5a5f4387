//! VT-x: the first backend. EPT, VPID, unrestricted guest, bitmaps and TPR shadow are mandatory, the preemption timer is
//! used where there is one.
//!
//! `capabilities` and `controls` say what the CPU offers and what is used; `fields` and `vmcs` are the instructions;
//! `state` fills a VMCS, `entry` switches worlds, `exit` decodes; `events`, `control_registers` and `msr` are topics of a
//! running vCPU, which `vcpu` puts together for the layers above; `report` speaks when something failed.

mod apic;
mod capabilities;
mod control_registers;
pub mod controls;
mod entry;
mod events;
mod exit;
mod fields;
mod msr;
mod report;
mod state;
mod vcpu;
mod vmcs;
mod vpid;

use core::fmt;
use core::sync::atomic::Ordering;

use oxen_core::id::CpuId;
use x86_64::registers::control::{Cr0, Cr4};

use crate::cpu::msr as host_msr;
use crate::memory::HostPages;
use crate::virt::{Backend, Missing, VcpuConfig};
use capabilities::Capabilities;

pub use vcpu::VmxVcpu;

const FEATURE_CONTROL: u32 = 0x3A;
const FEATURE_LOCKED: u64 = 1 << 0;
const FEATURE_VMX: u64 = 1 << 2;
const CR0_FIXED: [u32; 2] = [0x486, 0x487];
const CR4_FIXED: [u32; 2] = [0x488, 0x489];

/// The backend.
pub struct Vmx {
    capabilities: Capabilities,
    apic: bool,
    msr_bitmap: HostPages,
    /// For vCPUs whose x2APIC the CPU virtualizes.
    x2apic_bitmap: HostPages,
}

impl Backend for Vmx {
    const NAME: &'static str = "VT-x";
    type Vcpu = VmxVcpu;

    fn probe(apic: bool) -> Result<Self, Missing> {
        const VMX: u32 = 1 << 5;
        if core::arch::x86_64::__cpuid(1).ecx & VMX == 0 {
            return Err(missing(format_args!(
                "VT-x (VMX, CPUID 1 ECX bit 5); enable virtualization in the firmware setup, or use a CPU that has it"
            )));
        }
        let capabilities = Capabilities::probe(apic)?;
        let bitmap = || {
            HostPages::new_zeroed(1)
                .ok_or_else(|| missing(format_args!("memory for the MSR bitmap")))
        };
        let (mut msr_bitmap, mut x2apic_bitmap) = (bitmap()?, bitmap()?);
        msr::fill_bitmap(msr_bitmap.bytes_mut());
        msr::fill_bitmap(x2apic_bitmap.bytes_mut());
        apic::open_msrs(x2apic_bitmap.bytes_mut());
        Ok(Self {
            capabilities,
            apic,
            msr_bitmap,
            x2apic_bitmap,
        })
    }

    fn wants_apic_access_page(&self) -> bool {
        self.capabilities.apic_accesses != 0
    }

    fn enable(&self, _: CpuId) -> Result<(), Missing> {
        if Capabilities::probe(self.apic)? != self.capabilities {
            return Err(missing(format_args!(
                "the VT-x capabilities of the boot CPU; give all CPUs the same firmware settings and microcode"
            )));
        }
        let control = host_msr::read_safe(FEATURE_CONTROL).unwrap_or(FEATURE_LOCKED | FEATURE_VMX);
        if control & FEATURE_LOCKED == 0 {
            // SAFETY: turns VMX on and locks it, as firmware should have done.
            let _ = unsafe {
                host_msr::write_safe(FEATURE_CONTROL, control | FEATURE_LOCKED | FEATURE_VMX)
            };
        } else if control & FEATURE_VMX == 0 {
            return Err(missing(format_args!(
                "VT-x, which the firmware has locked off; enable it in the firmware setup (often: Intel Virtualization Technology)"
            )));
        }
        let fixed = |value: u64, limits: [u32; 2]| {
            (value | host_msr::read(limits[0])) & host_msr::read(limits[1])
        };
        // SAFETY: VMX wants some bits set and some clear (SDM vol. 3, 24.8); those are NE, VMXE and bits that are so anyway.
        unsafe {
            Cr0::write_raw(fixed(Cr0::read_raw(), CR0_FIXED));
            Cr4::write_raw(fixed(Cr4::read_raw(), CR4_FIXED));
        }
        let region = HostPages::new_zeroed(1)
            .ok_or_else(|| missing(format_args!("memory for the VMXON region")))?;
        region
            .shared()
            .u32(0)
            .store(self.capabilities.revision, Ordering::Relaxed);
        // SAFETY: the region carries the revision and is given away for good.
        if unsafe { vmcs::on(region.leak().address()) } {
            Ok(())
        } else {
            Err(missing(format_args!(
                "VT-x for us: VMXON was refused; another hypervisor may hold this CPU"
            )))
        }
    }

    fn new_vcpu(&self, config: VcpuConfig) -> Result<VmxVcpu, Missing> {
        VmxVcpu::new(
            &self.capabilities,
            [&self.msr_bitmap, &self.x2apic_bitmap].map(|bitmap| bitmap.first().address()),
            &config,
        )
    }

    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "EPT, VPID, unrestricted guest, TPR shadow")?;
        for (name, present) in self.capabilities.optional() {
            if present {
                write!(out, ", {name}")?;
            }
        }
        Ok(())
    }
}

fn missing(what: fmt::Arguments<'_>) -> Missing {
    alloc::fmt::format(what)
}
