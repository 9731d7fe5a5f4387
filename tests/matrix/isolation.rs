//! dom0 reaches for what is the hypervisor's: it gets a fault or all-ones, and the hypervisor lives.

use oxen_tests::{Dom0, Failure, Setup, ensure};
use xtask::machine::Kind;

use crate::{Case, checks};

/// Where the hypervisor's image starts in physical memory (boot/oxen.ld).
const IMAGE: u64 = 0x20_0000;
/// The hypervisor's UART: its line status register, which never reads all-ones when there is a UART.
const UART_LINE_STATUS: u16 = 0x3fd;
/// The page of the emulated local APIC, and its version register.
const LOCAL_APIC_VERSION: u64 = 0xfee0_0030;
/// IA32_EFER, and its bit for active long mode (SDM vol. 4).
const EFER: u32 = 0xc000_0080;
const EFER_LMA: u64 = 1 << 10;
/// MSRs that belong to whoever runs the virtual machines: IA32_VMX_BASIC and IA32_VMX_EPT_VPID_CAP (SDM vol. 4), VM_HSAVE_PA (APM vol. 2).
const HYPERVISOR_MSRS: &[u32] = &[0x480, 0x48c, 0xc001_0117];

/// Something that dom0 tries.
type Probe = fn(&mut Dom0) -> Result<(), Failure>;

const PROBES: &[Probe] = &[
    memory_is_hidden,
    uart_is_hidden,
    msrs_fault,
    local_apic_is_emulated,
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "isolation::probes", probes))
        .collect()
}

/// Boots, probes, and shows after each that the hypervisor lives: dom0 still answers; at the end it powers off.
fn probes(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    // Lets /dev/mem map device memory that a driver has claimed.
    setup.dom0_options = "iomem=relaxed".into();
    let mut dom0 = setup.boot()?;
    let mut faults = Vec::new();
    for probe in PROBES {
        faults.extend(probe(&mut dom0).err().map(|fault| fault.to_string()));
        checks::is_pvh_dom0(&mut dom0, 1)?;
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    dom0.power_off()
}

fn memory_is_hidden(dom0: &mut Dom0) -> Result<(), Failure> {
    for page in [IMAGE, IMAGE + 0x1000, IMAGE + 0x10_0000] {
        let read = dom0.try_run(&format!("devmem {page:#x} 32"))?;
        let value = read.text.trim();
        ensure!(
            read.status != 0 || value.eq_ignore_ascii_case("0xffffffff"),
            "dom0 reads {value} from the hypervisor's memory at {page:#x}"
        );
        // Whatever becomes of the write, it must not reach the hypervisor, which the rest of the test shows.
        dom0.try_run(&format!("devmem {page:#x} 32 0"))?;
    }
    Ok(())
}

fn uart_is_hidden(dom0: &mut Dom0) -> Result<(), Failure> {
    let read =
        format!("dd if=/dev/port bs=1 count=1 skip={UART_LINE_STATUS} 2>/dev/null | od -An -tx1");
    let value = dom0.run(&read)?;
    ensure!(
        value.trim() == "ff",
        "dom0 reads {value} from the hypervisor's UART"
    );
    Ok(())
}

fn msrs_fault(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run("[ -c /dev/cpu/0/msr ]")?;
    let read = |msr: u32| {
        format!(
            "dd if=/dev/cpu/0/msr bs=8 count=1 skip={msr} iflag=skip_bytes 2>/dev/null | od -An -tx8"
        )
    };
    // The way itself works: long mode is active, says IA32_EFER.
    let efer = u64::from_str_radix(dom0.run(&read(EFER))?.trim(), 16);
    ensure!(
        efer.as_ref().is_ok_and(|efer| efer & EFER_LMA != 0),
        "dom0 cannot read an MSR that is its own: IA32_EFER reads {efer:x?}"
    );
    for &msr in HYPERVISOR_MSRS {
        let value = dom0.run(&read(msr))?;
        ensure!(
            value.trim().is_empty(),
            "dom0 reads {} from MSR {msr:#x}",
            value.trim()
        );
    }
    Ok(())
}

fn local_apic_is_emulated(dom0: &mut Dom0) -> Result<(), Failure> {
    // A read either gives the version register of an integrated APIC (SDM vol. 3, 11.4.8) or, in x2APIC mode, nothing of it.
    let read = dom0.try_run(&format!("devmem {LOCAL_APIC_VERSION:#x} 32"))?;
    let value = u32::from_str_radix(
        read.text
            .trim()
            .trim_start_matches("0x")
            .trim_start_matches("0X"),
        16,
    );
    ensure!(
        read.status != 0
            || value
                .is_ok_and(|value| value == u32::MAX || (0x10..=0x15).contains(&(value & 0xff))),
        "dom0 reads {} from the local APIC's version register",
        read.text.trim()
    );
    Ok(())
}
