//! GDT and TSS of each CPU. The interrupt descriptor table is shared, see [`crate::interrupt::table`].

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::memory::paging;

/// IST slot (0-based) of the NMI stack.
pub const IST_NMI: u16 = 0;
/// IST slot of the double-fault stack.
pub const IST_DOUBLE_FAULT: u16 = 1;
/// IST slot of the machine-check stack.
pub const IST_MACHINE_CHECK: u16 = 2;

/// Bytes of each IST stack.
const IST_STACK: u64 = 16 * 1024;

/// A CPU's descriptor tables.
pub struct Descriptors {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
    selectors: Selectors,
}

/// Selectors in every CPU's GDT: the same on all.
#[derive(Clone, Copy, Debug)]
pub struct Selectors {
    /// 64-bit code.
    pub code: SegmentSelector,
    /// Data.
    pub data: SegmentSelector,
    /// The task state segment.
    pub task: SegmentSelector,
}

impl Descriptors {
    /// Empty tables, to be filled by [`Descriptors::load`].
    pub const fn new() -> Self {
        let null = SegmentSelector(0);
        Self {
            gdt: GlobalDescriptorTable::empty(),
            tss: TaskStateSegment::new(),
            selectors: Selectors {
                code: null,
                data: null,
                task: null,
            },
        }
    }

    /// Gives the CPU its interrupt stacks and loads the tables; GS base is lost and must be set again.
    pub fn load(&'static mut self) -> &'static Self {
        for slot in [IST_NMI, IST_DOUBLE_FAULT, IST_MACHINE_CHECK] {
            self.tss.interrupt_stack_table[usize::from(slot)] =
                VirtAddr::new(paging::new_stack(IST_STACK));
        }
        self.selectors.code = self.gdt.append(Descriptor::kernel_code_segment());
        self.selectors.data = self.gdt.append(Descriptor::kernel_data_segment());
        // SAFETY: `self` is 'static and its TSS is not moved after this.
        let tss = unsafe { Descriptor::tss_segment_unchecked(&raw const self.tss) };
        self.selectors.task = self.gdt.append(tss);
        let this: &'static Self = self;
        this.gdt.load();
        // SAFETY: the selectors name the descriptors just appended, which have the right types.
        unsafe {
            CS::set_reg(this.selectors.code);
            SS::set_reg(this.selectors.data);
            DS::set_reg(this.selectors.data);
            ES::set_reg(this.selectors.data);
            FS::set_reg(SegmentSelector(0));
            GS::set_reg(SegmentSelector(0));
            load_tss(this.selectors.task);
        }
        this
    }

    /// Where this CPU's host state points.
    pub fn host_tables(&self) -> HostTables {
        HostTables {
            gdt_base: (&raw const self.gdt).cast::<u8>() as u64,
            tss_base: (&raw const self.tss).cast::<u8>() as u64,
            selectors: self.selectors,
        }
    }
}

/// Addresses and selectors that the hardware needs to return to the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct HostTables {
    /// Linear address of the GDT.
    pub gdt_base: u64,
    /// Linear address of the TSS.
    pub tss_base: u64,
    /// The selectors.
    pub selectors: Selectors,
}
