//! Building the control domain: memory one to one, the kernel and what it is told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::Range;

use oxen_abi::start_info::{
    FLAGS_DOM0, MAGIC, MEMORY_MAP_ENTRY_SIZE, MODULE_ENTRY_SIZE, StartInfo,
};
use oxen_core::acpi::build_dom0_tables;
use oxen_core::address::{Gfn, GuestPhys, HostPhys, Mfn, PAGE_SIZE};
use oxen_core::grant::Limits;
use oxen_core::id::DomainId;
use oxen_core::kernel::{Image, PvhKernel};
use oxen_core::memory::p2m::Kind;
use oxen_core::memory::ranges::{MapEntry, RangeSet, dom0_map};
use oxen_core::schedule::DEFAULT_WEIGHT;

use super::Domain;
use super::life::{Life, MOST_VCPUS};
use super::p2m::{DomainP2m, machine_format};
use crate::cpu;
use crate::memory::{frames, layout};
use crate::platform::firmware;
use crate::stop;

/// RAM that is kept from other use until dom0 is built: where its kernel wants to be.
pub const KERNEL_WINDOW: Range<u64> = 16 << 20..144 << 20;
/// Its weight, until `ox sched-credit2` sets another. Xen gives it that of any domain; but it serves all the others, and its
/// shell is how one gets rid of those that take too much. Beside two dozen vCPUs that compute on two CPUs it would get a
/// twelfth of one CPU, and making or ending a guest would take minutes. When it has nothing to do this takes nothing from
/// anybody.
pub const WEIGHT: NonZeroU16 = NonZeroU16::new(8 * DEFAULT_WEIGHT).unwrap();
/// Less makes no Debian kernel happy.
const SMALLEST: u64 = 96 << 20;
const MIB: u64 = 1 << 20;

/// What the builder needs.
pub struct Plan<'a> {
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// The initial RAM disk, if any.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub arguments: &'a str,
    /// The machine's memory map.
    pub host_map: &'a [MapEntry],
    /// RAM in [`KERNEL_WINDOW`] and below 1 MiB, which the allocator does not have.
    pub reserved: RangeSet,
    /// Bytes of RAM to give it, as `dom0_mem=` says.
    pub memory: Option<u64>,
    /// vCPUs to give it, as `dom0_max_vcpus=` says.
    pub vcpus: Option<u32>,
}

/// Where dom0 starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// 32-bit entry point.
    pub entry: u32,
    /// Address of the start information.
    pub start_info: u32,
}

/// Builds the domain; refuses the boot with a cause if that is not possible.
pub fn build(plan: Plan<'_>) -> (Arc<Domain>, Start) {
    let image = Image::parse(plan.kernel)
        .unwrap_or_else(|error| stop::refuse_boot(format_args!("dom0 kernel: {error}")));
    let mut buffer: Vec<u8> = Vec::new();
    if buffer.try_reserve_exact(image.unpacked_size()).is_err() {
        stop::refuse_boot(format_args!(
            "not enough memory to unpack dom0's kernel ({} MiB)",
            image.unpacked_size() / MIB as usize
        ));
    }
    buffer.resize(image.unpacked_size(), 0);
    let kernel = image
        .unpack_into(&mut buffer)
        .unwrap_or_else(|error| stop::refuse_boot(format_args!("dom0 kernel: {error}")));
    let extent = kernel.extent();
    if plan
        .reserved
        .within(extent.clone())
        .map(|part| part.end - part.start)
        .sum::<u64>()
        != extent.end - extent.start
    {
        stop::refuse_boot(format_args!(
            "dom0's kernel wants {:#x}-{:#x}, which is not all free RAM on this machine",
            extent.start, extent.end
        ));
    }
    crate::console::stage("dom0's kernel is unpacked");
    load_segments(&kernel);
    let entry = kernel.entry;
    drop(buffer);

    let own = choose_memory(&plan);
    let domain = new_domain(&plan);
    map_memory(&domain, &own);
    *domain.own.lock() = own.clone();
    let start_info = write_start_info(&plan, &domain, &own, &extent);
    (Arc::new(domain), Start { entry, start_info })
}

fn load_segments(kernel: &PvhKernel<'_>) {
    for segment in kernel.segments() {
        let to = layout::direct_map(HostPhys(segment.address));
        // SAFETY: the whole extent was found to be RAM that nobody uses, in the direct map.
        unsafe {
            core::ptr::copy_nonoverlapping(segment.bytes.as_ptr(), to, segment.bytes.len());
            to.add(segment.bytes.len())
                .write_bytes(0, segment.size as usize - segment.bytes.len());
        }
    }
}

/// Takes dom0's RAM: what was kept for it, then free frames from the bottom up to the quota.
fn choose_memory(plan: &Plan<'_>) -> RangeSet {
    let mut own = plan.reserved.clone();
    let kept = own.total();
    let available = kept + frames::free_count() * PAGE_SIZE as u64;
    let quota = match plan.memory {
        Some(asked) if asked > available => stop::refuse_boot(format_args!(
            "dom0_mem={}M is more than the {}M that this machine has free; give less",
            asked / MIB,
            available / MIB
        )),
        Some(asked) if asked < SMALLEST => stop::refuse_boot(format_args!(
            "dom0_mem={}M is too little; give at least {}M",
            asked / MIB,
            SMALLEST / MIB
        )),
        Some(asked) => asked,
        None => default_memory(available),
    };
    if kept > quota {
        // What was kept for the kernel but is not wanted goes back from its upper end.
        let mut surplus = kept - quota;
        for range in plan.reserved.iter().collect::<Vec<_>>().into_iter().rev() {
            let cut = surplus.min(range.end - range.start) & !(PAGE_SIZE as u64 - 1);
            frames::add(
                HostPhys(range.end - cut).frame(),
                HostPhys(range.end).frame(),
            );
            own.remove(range.end - cut..range.end);
            surplus -= cut;
        }
        return own;
    }
    let mut missing = (quota - kept) / PAGE_SIZE as u64;
    for range in plan.host_map.iter().filter(|entry| entry.kind == 1) {
        let (mut first, end) = (range.range.start.div_ceil(4096), range.range.end / 4096);
        while missing > 0 && first < end {
            let stop_at = end.min(first + missing);
            let mut got = 0;
            frames::take_range(Mfn(first), Mfn(stop_at), |frame, count| {
                own.insert(frame.bytes(count));
                got += count;
            });
            missing -= got;
            first = stop_at;
        }
    }
    own
}

/// Most memory stays for guests: a quarter of it, between 512 MiB and 4 GiB, or all of a small machine's but a rest.
fn default_memory(available: u64) -> u64 {
    const LEAST: u64 = 512 * MIB;
    const MOST: u64 = 4096 * MIB;
    const REST: u64 = 32 * MIB;
    (available / 4)
        .clamp(LEAST, MOST)
        .min(available.saturating_sub(REST))
}

fn new_domain(plan: &Plan<'_>) -> Domain {
    let cpus = cpu::percpu::all().count() as u32;
    let vcpus = plan.vcpus.unwrap_or(cpus).clamp(1, MOST_VCPUS) as usize;
    let (format, gigabyte_pages) = machine_format();
    DomainP2m::new(format, gigabyte_pages)
        .and_then(|p2m| {
            Domain::new(
                DomainId::DOM0,
                true,
                Life::running(),
                vcpus,
                p2m,
                Limits::default(),
            )
        })
        .unwrap_or_else(|| {
            stop::refuse_boot(format_args!("no memory left for dom0's own structures"))
        })
}

/// One to one, with the largest pages that fit. The frames' content is what firmware and loader left, except for what
/// we write: it is the machine's own, no other domain's.
fn map_memory(domain: &Domain, own: &RangeSet) {
    let mut p2m = domain.p2m.lock();
    for range in own.shrunk_to(PAGE_SIZE as u64).iter() {
        let (first, count) = (
            range.start / PAGE_SIZE as u64,
            (range.end - range.start) / PAGE_SIZE as u64,
        );
        if p2m.map(Gfn(first), Mfn(first), count, Kind::Ram).is_err() {
            stop::refuse_boot(format_args!("no memory left for dom0's guest-physical map"));
        }
    }
}

/// Start information, memory map, module list, command line and ACPI tables in one block below 1 GiB; the RAM disk.
fn write_start_info(plan: &Plan<'_>, domain: &Domain, own: &RangeSet, kernel: &Range<u64>) -> u32 {
    const TABLES: u64 = 64 << 10;
    const BLOCK: u64 = TABLES + (32 << 10);
    let pages = own.shrunk_to(PAGE_SIZE as u64);
    let refuse = |what: &str| -> ! {
        stop::refuse_boot(format_args!(
            "no room for {what} in dom0's memory; raise dom0_mem"
        ))
    };
    let Some(block) = pages
        .find_first(BLOCK, PAGE_SIZE as u64, kernel.end)
        .filter(|block| block + BLOCK <= 1 << 30)
    else {
        refuse("dom0's start information");
    };
    let initrd = plan.initrd.map(|initrd| {
        let size = initrd.len() as u64;
        let place = pages
            .find_first(size, PAGE_SIZE as u64, block + BLOCK)
            .filter(|place| place + size <= 1 << 32);
        let Some(place) = place else {
            refuse("the initial RAM disk")
        };
        write(domain, place, initrd);
        (place, size)
    });

    let Some(firmware) = firmware::get() else {
        refuse("ACPI tables")
    };
    let apic_ids: Vec<u32> = domain.vcpus.iter().map(|vcpu| vcpu.id.0.into()).collect();
    let tables = build_dom0_tables(
        &firmware.tables,
        &firmware.madt,
        &apic_ids,
        GuestPhys(block),
    );
    if tables.bytes.len() as u64 > TABLES {
        refuse("ACPI tables");
    }
    write(domain, block, &tables.bytes);
    let table_range = RangeSet::from(block..block + TABLES);

    let map: Vec<MapEntry> = dom0_map(plan.host_map, own, &table_range);
    const MOST_ENTRIES: usize = 127;
    if map.len() > MOST_ENTRIES {
        log::warn!(
            "dom0's memory map has {} entries; Linux takes {MOST_ENTRIES}, the rest is not told",
            map.len()
        );
    }
    let entries = map.len().min(MOST_ENTRIES);
    let info_at = block + TABLES;
    let module_at = info_at + 64;
    let map_at = module_at + MODULE_ENTRY_SIZE as u64;
    let line_at = map_at + (entries * MEMORY_MAP_ENTRY_SIZE) as u64;
    let mut line: Vec<u8> = plan.arguments.bytes().collect();
    line.push(0);
    write(domain, line_at, &line);
    for (index, entry) in map.iter().take(entries).enumerate() {
        let mut bytes = [0; MEMORY_MAP_ENTRY_SIZE];
        bytes[0..8].copy_from_slice(&entry.range.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&(entry.range.end - entry.range.start).to_le_bytes());
        bytes[16..20].copy_from_slice(&entry.kind.to_le_bytes());
        write(
            domain,
            map_at + (index * MEMORY_MAP_ENTRY_SIZE) as u64,
            &bytes,
        );
    }
    if let Some((place, size)) = initrd {
        let mut bytes = [0; MODULE_ENTRY_SIZE];
        bytes[0..8].copy_from_slice(&place.to_le_bytes());
        bytes[8..16].copy_from_slice(&size.to_le_bytes());
        write(domain, module_at, &bytes);
    }
    let info = StartInfo {
        magic: MAGIC,
        version: 1,
        flags: FLAGS_DOM0,
        modules: initrd.is_some().into(),
        module_list: if initrd.is_some() { module_at } else { 0 },
        command_line: line_at,
        rsdp: tables.rsdp.0,
        memory_map: map_at,
        memory_map_entries: entries as u32,
        reserved: 0,
    };
    write(domain, info_at, &info.to_bytes());
    domain.memory_map.call_once(|| map.into_boxed_slice());
    info_at as u32
}

fn write(domain: &Domain, address: u64, bytes: &[u8]) {
    if !domain.write_physical(GuestPhys(address), bytes) {
        stop::refuse_boot(format_args!("dom0's memory at {address:#x} is not mapped"));
    }
}
