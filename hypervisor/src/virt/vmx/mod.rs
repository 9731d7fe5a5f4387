//! VT-x: the first backend. EPT, VPID, unrestricted guest, bitmaps and TPR shadow are mandatory, the preemption timer is
//! used where there is one.

pub mod controls;
mod exit;
mod fields;
mod vcpu;
mod vmcs;

use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};

use oxen_core::id::CpuId;
use x86_64::registers::control::{Cr0, Cr4};

use crate::cpu::msr;
use crate::memory::HostPages;
use crate::virt::{Backend, Missing, VcpuConfig};
use controls::Controls;

pub use vcpu::VmxVcpu;

const FEATURE_CONTROL: u32 = 0x3A;
const FEATURE_LOCKED: u64 = 1 << 0;
const FEATURE_VMX: u64 = 1 << 2;
const CR0_FIXED: [u32; 2] = [0x486, 0x487];
const CR4_FIXED: [u32; 2] = [0x488, 0x489];

static NEXT_VPID: AtomicU16 = AtomicU16::new(1);

/// The backend.
pub struct Vmx {
    controls: Controls,
    msr_bitmap: HostPages,
}

impl Backend for Vmx {
    const NAME: &'static str = "VT-x";
    type Vcpu = VmxVcpu;

    fn probe() -> Result<Self, Missing> {
        const VMX: u32 = 1 << 5;
        if core::arch::x86_64::__cpuid(1).ecx & VMX == 0 {
            return Err(missing(format_args!(
                "VT-x (VMX, CPUID 1 ECX bit 5); enable virtualization in the firmware setup, or use a CPU that has it"
            )));
        }
        let controls = Controls::probe()?;
        let mut msr_bitmap = HostPages::new_zeroed(1)
            .ok_or_else(|| missing(format_args!("memory for the MSR bitmap")))?;
        fill_msr_bitmap(msr_bitmap.bytes_mut());
        Ok(Self {
            controls,
            msr_bitmap,
        })
    }

    fn enable(&self, _: CpuId) -> Result<(), Missing> {
        let control = msr::read_safe(FEATURE_CONTROL).unwrap_or(FEATURE_LOCKED | FEATURE_VMX);
        if control & FEATURE_LOCKED == 0 {
            // SAFETY: turns VMX on and locks it, as firmware should have done.
            let _ =
                unsafe { msr::write_safe(FEATURE_CONTROL, control | FEATURE_LOCKED | FEATURE_VMX) };
        } else if control & FEATURE_VMX == 0 {
            return Err(missing(format_args!(
                "VT-x: the firmware locked it off; enable VT-x in the firmware setup"
            )));
        }
        let fixed =
            |value: u64, limits: [u32; 2]| (value | msr::read(limits[0])) & msr::read(limits[1]);
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
            .store(self.controls.revision, Ordering::Relaxed);
        // SAFETY: the region carries the revision and is given away for good.
        if unsafe { vmcs::on(region.leak().address()) } {
            Ok(())
        } else {
            Err(missing(format_args!(
                "VT-x: VMXON was refused; another hypervisor may hold this CPU"
            )))
        }
    }

    fn new_vcpu(&self, config: VcpuConfig) -> Result<VmxVcpu, Missing> {
        let vpid = NEXT_VPID.fetch_add(1, Ordering::Relaxed);
        if vpid == 0 {
            return Err(missing(format_args!("a free virtual processor ID")));
        }
        VmxVcpu::new(
            &self.controls,
            vpid,
            self.msr_bitmap.first().address(),
            &config,
        )
    }

    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "EPT, VPID, unrestricted guest, TPR shadow")?;
        for (present, name) in [
            (self.controls.timer_shift.is_some(), "preemption timer"),
            (
                self.controls.secondary & controls::secondary::PAUSE_LOOP != 0,
                "PAUSE-loop exiting",
            ),
            (controls::gigabyte_pages(), "1 GiB pages"),
        ] {
            if present {
                write!(out, ", {name}")?;
            }
        }
        Ok(())
    }
}

/// Everything exits but MSRs whose guest values are in the registers while the vCPU is loaded, or which the VMCS switches.
fn fill_msr_bitmap(bitmap: &mut [u8]) {
    const DIRECT: [u32; 12] = [
        0x174,
        0x175,
        0x176, // SYSENTER_CS, _ESP, _EIP
        0x277, // PAT
        0xC000_0081,
        0xC000_0082,
        0xC000_0083,
        0xC000_0084, // STAR, LSTAR, CSTAR, SFMASK
        0xC000_0100,
        0xC000_0101,
        0xC000_0102,
        0xC000_0103, // FS, GS, kernel GS base, TSC_AUX
    ];
    const WRITES: usize = 2048;
    const HIGH: usize = 1024;
    bitmap.fill(0xFF);
    for index in DIRECT {
        let (part, bit) = if index >= 0xC000_0000 {
            (HIGH, index - 0xC000_0000)
        } else {
            (0, index)
        };
        for base in [part, part + WRITES] {
            if let Some(byte) = bitmap.get_mut(base + bit as usize / 8) {
                *byte &= !(1 << (bit % 8));
            }
        }
    }
}

fn missing(what: fmt::Arguments<'_>) -> Missing {
    alloc::fmt::format(what)
}
