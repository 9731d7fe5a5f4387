//! The Oxen hypervisor: the bare-metal binary.
//!
//! This file is the table of contents of the boot; each step lives in its own module.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod console;
mod cpu;
mod debug_keys;
mod domain;
mod hypercall;
mod interrupt;
mod memory;
mod platform;
mod stop;
mod time;
mod vcpu;
mod virt;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use oxen_core::address::PAGE_SIZE;
use oxen_core::apic::{LocalApic, Trigger};
use oxen_core::cmdline::Options;
use oxen_core::id::CpuId;
use oxen_core::memory::ranges::E820_RAM;
use oxen_core::schedule::Affinity;
use spin::Once;

use boot::loader::{Framebuffer, Loaded};
use boot::memory_plan;
use cpu::features::{self, Vendor};
use cpu::{PerCpu, fpu, smp};
use domain::{Domain, dom0};
use interrupt::{io_apic, local_apic, pic};
use memory::{HostPages, paging};
use platform::{firmware, irq, pci, ports};
use vcpu::{Running, Wait};
use virt::svm::Svm;
use virt::vmx::Vmx;
use virt::{Backend, StartRegisters, VcpuConfig};

static COMMAND_LINE: Once<String> = Once::new();

static SCREEN: Once<Framebuffer> = Once::new();

/// The screen that the loader set up, if it did.
fn screen() -> Option<&'static Framebuffer> {
    SCREEN.get()
}

/// The hypervisor's command line.
fn command_line() -> &'static str {
    COMMAND_LINE.get().map_or("", String::as_str)
}

/// From the loader's information to dom0: called once, on the boot CPU.
fn bring_up(loaded: Loaded, entry_ticks: u64) -> ! {
    time::set_entry_ticks(entry_ticks);
    memory::heap::init();
    let options = Options::parse(&loaded.command_line);
    COMMAND_LINE.call_once(|| loaded.command_line.as_str().into());
    apply_console_options(&options);
    if let Some(screen) = loaded.framebuffer {
        SCREEN.call_once(|| screen);
    }

    let plan = memory_plan::prepare(&loaded);
    if let Some(tables) = &loaded.symbols {
        boot::symbols::keep(tables);
    }
    if let Some(screen) = loaded.framebuffer.filter(|_| options.console_vga) {
        console::screen::open(screen);
    }
    console::stage("memory is managed, page tables are W^X");

    let prepared = Box::new(Prepared {
        options,
        loaded,
        plan,
    });
    let top = paging::new_stack(BOOT_STACK);
    // SAFETY: the stack is fresh and guarded, the function never returns, and the box is its own from here on.
    unsafe { enter_on_stack(top, with_guarded_stack, Box::into_raw(prepared)) }
}

/// Bytes of the boot CPU's stack: decompression of dom0's kernel runs on it.
const BOOT_STACK: u64 = 256 * 1024;

/// What the first part of the boot hands to the second.
struct Prepared {
    options: Options,
    loaded: Loaded,
    plan: memory_plan::Plan,
}

/// Leaves the early stack for good.
///
/// # Safety
/// `top` is the top of a mapped stack that nobody uses; `argument` is what `function` wants.
unsafe fn enter_on_stack(
    top: u64,
    function: extern "C" fn(*mut Prepared) -> !,
    argument: *mut Prepared,
) -> ! {
    // SAFETY: by the caller's promise.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {function}",
            "ud2",
            top = in(reg) top,
            function = in(reg) function,
            in("rdi") argument,
            options(noreturn),
        )
    }
}

extern "C" fn with_guarded_stack(prepared: *mut Prepared) -> ! {
    // SAFETY: `bring_up` made it with `Box::into_raw` and passes it once.
    let prepared = unsafe { Box::from_raw(prepared) };
    let Prepared {
        options,
        loaded,
        plan,
    } = *prepared;
    bring_up_machine(&options, &loaded, plan)
}

/// Interrupts, clocks, CPUs, virtualization, dom0.
fn bring_up_machine(options: &Options, loaded: &Loaded, plan: memory_plan::Plan) -> ! {
    features::enable_on_this_cpu();
    pic::silence();
    local_apic::probe();
    PerCpu::publish(CpuId(0), local_apic::id()).adopt();
    stop::set_up();
    console::stage("interrupts and exceptions have handlers");

    let firmware = firmware::read(loaded.rsdp);
    time::calibrate();
    local_apic::init_on_this_cpu();
    local_apic::calibrate();
    time::read_wall_clock();
    if options.cpuinfo {
        features::log_cpu();
    }
    let (apic, timer) = local_apic::describe();
    log::info!(
        "TSC {} kHz, local APIC: {apic}, timer: {timer}",
        time::khz()
    );
    io_apic::init(&firmware.madt.io_apics);
    irq::init();
    pci::init(&firmware.mcfg);
    console::stage("ACPI tables are read, clocks are calibrated");

    let cpus = smp::start(&firmware.madt.cpus);
    log::info!("{cpus} of {} CPUs are up", firmware.madt.cpus.len());
    console::stage("all CPUs are up");

    match features::vendor() {
        Vendor::Amd => run::<Svm>(options, loaded, plan),
        Vendor::Intel => run::<Vmx>(options, loaded, plan),
    }
}

/// The machine's backend, for the CPUs that come later.
struct Machine<B: Backend> {
    backend: B,
    domain: Arc<Domain>,
    start: dom0::Start,
    port_bitmap: HostPages,
    /// For domains without ports.
    closed_ports: HostPages,
}

/// What secondary CPUs run once there is a domain, for the backend that was chosen.
static SECONDARY: Once<fn(CpuId) -> !> = Once::new();

fn run<B: Backend>(options: &Options, loaded: &Loaded, plan: memory_plan::Plan) -> ! {
    let backend = B::probe(options.apic_virtualization)
        .unwrap_or_else(|missing| stop::refuse_boot(format_args!("this CPU lacks {missing}")));
    enable(&backend, CpuId(0));
    if backend.wants_apic_access_page() {
        domain::want_apic_access_page();
    }
    log::info!("{} with {}", B::NAME, Describe(&backend));
    console::stage("hardware virtualization is on");

    let kernel = plan.kernel.as_deref().unwrap_or_else(|| {
        stop::refuse_boot(format_args!(
            "no dom0 kernel: add a module2 line with the kernel to the boot loader's configuration"
        ))
    });
    let arguments = loaded
        .modules
        .first()
        .map_or("", |module| module.arguments.as_str());
    let (domain, start) = dom0::build(dom0::Plan {
        kernel,
        initrd: plan.initrd.as_deref(),
        arguments,
        host_map: &plan.map,
        reserved: plan.reserved,
        memory: options.dom0_mem,
        vcpus: options.dom0_max_vcpus,
    });
    drop((plan.kernel, plan.initrd));
    domain::set_dom0(domain.clone());
    let ram = plan
        .map
        .iter()
        .filter(|entry| entry.kind == E820_RAM)
        .map(|entry| entry.range.end - entry.range.start)
        .sum();
    let mut port_bitmap = HostPages::new_zeroed(ports::BITMAP / 4096)
        .unwrap_or_else(|| stop::refuse_boot(format_args!("no memory left for the port bitmap")));
    let mut closed_ports = HostPages::new_zeroed(ports::BITMAP / 4096)
        .unwrap_or_else(|| stop::refuse_boot(format_args!("no memory left for the port bitmap")));
    ports::fill_bitmap(closed_ports.bytes_mut(), false);
    ports::fill_bitmap(port_bitmap.bytes_mut(), true);
    claim_console();
    log_memory(ram, &domain);
    log::info!(
        "dom0 starts {} ticks after the hypervisor",
        time::ticks() - time::entry_ticks()
    );
    console::stage("dom0 is built; it starts now, and has the screen");
    console::screen::close();

    let machine: &'static Machine<B> = Box::leak(Box::new(Machine {
        backend,
        domain,
        start,
        port_bitmap,
        closed_ports,
    }));
    MachinePointer::set(machine);
    admit_dom0(machine, options);
    SECONDARY.call_once(|| secondary_with::<B>);
    smp::release();
    vcpu::run::serve::<B::Vcpu>()
}

/// Says who has the RAM: what is neither dom0's nor free is what the hypervisor itself takes.
fn log_memory(ram: u64, domain: &Domain) {
    let free = memory::frames::free_count() << 12;
    let own = domain.own.lock().total();
    log::info!(
        "RAM: {} KiB, dom0 with {} vCPUs has {} KiB, {} KiB are left for guests, the hypervisor keeps {} KiB",
        ram >> 10,
        domain.vcpus.len(),
        own >> 10,
        free >> 10,
        ram.saturating_sub(own + free) >> 10
    );
}

/// Entered by each secondary CPU when dom0 has been built.
fn secondary(cpu: CpuId) -> ! {
    match SECONDARY.get() {
        Some(go) => go(cpu),
        None => stop::halt(),
    }
}

/// The machine's address, typed again by the one function that was chosen together with it.
struct MachinePointer;

static MACHINE: Once<usize> = Once::new();

impl MachinePointer {
    fn set<B: Backend>(machine: &'static Machine<B>) {
        MACHINE.call_once(|| core::ptr::from_ref(machine).expose_provenance());
    }

    fn get<B: Backend>() -> Option<&'static Machine<B>> {
        let address = *MACHINE.get()?;
        // SAFETY: `run::<B>` stored the address of a leaked `Machine<B>` and chose `secondary_with::<B>`, the only caller,
        // with the same B.
        Some(unsafe { &*core::ptr::with_exposed_provenance(address) })
    }
}

fn secondary_with<B: Backend>(cpu: CpuId) -> ! {
    match MachinePointer::get::<B>() {
        Some(machine) => {
            enable(&machine.backend, cpu);
            vcpu::run::serve::<B::Vcpu>()
        }
        None => stop::halt(),
    }
}

fn enable<B: Backend>(backend: &B, cpu: CpuId) {
    if let Err(missing) = backend.enable(cpu) {
        stop::refuse_boot(format_args!("CPU {cpu} lacks {missing}"));
    }
}

/// Makes the scheduler and dom0's vCPUs. The first one runs as soon as a CPU asks for work.
fn admit_dom0<B: Backend>(machine: &'static Machine<B>, options: &Options) {
    let cpus = cpu::percpu::all().count();
    vcpu::schedule::init(
        cpus,
        Box::new(|domain, index| Ok(Box::new(new_vcpu(machine, domain, index)?))),
    );
    vcpu::schedule::scheduler().set_rate_limit(options.rate_limit);
    let affinity = |index: usize| {
        let mut affinity = Affinity::default();
        if options.dom0_vcpus_pin {
            affinity.hard = core::iter::once(CpuId((index % cpus) as u16)).collect();
        }
        affinity
    };
    vcpu::schedule::admit(&machine.domain, affinity)
        .unwrap_or_else(|missing| stop::refuse_boot(format_args!("dom0 has no vCPUs: {missing}")));
    machine.domain.vcpus[0].kick();
}

fn new_vcpu<B: Backend>(
    machine: &Machine<B>,
    domain: &Arc<Domain>,
    index: usize,
) -> Result<Running<B::Vcpu>, virt::Missing> {
    const { assert!(size_of::<Running<B::Vcpu>>() <= PAGE_SIZE) };
    let no_memory = || virt::Missing::from("memory");
    let domain = domain.clone();
    let port_bitmap = if domain.privileged {
        &machine.port_bitmap
    } else {
        &machine.closed_ports
    };
    let apic_page = HostPages::new_zeroed(1).ok_or_else(no_memory)?;
    let hardware = machine.backend.new_vcpu(VcpuConfig {
        nested_root: domain.p2m.lock().root(),
        port_bitmap: port_bitmap.first().address(),
        apic_page: apic_page.first().address(),
        apic_access_page: domain
            .apic_access_page
            .as_ref()
            .map(|page| page.first().address()),
        tsc_offset: 0,
    })?;
    let mut running = Running {
        apic: LocalApic::new(apic_page.shared(), index as u32, index == 0),
        _apic_page: apic_page,
        shared: domain.vcpus[index].clone(),
        domain,
        index,
        hardware,
        gprs: virt::Gprs::default(),
        fpu: fpu::State::new().ok_or_else(no_memory)?,
        debug_registers: [0; 4],
        start: None,
        wait: Wait::Down,
        yields: false,
        set_timer: None,
        kept: vcpu::msr::Kept::default(),
        cpu_policy: domain::control::PolicyCopy::default(),
        map_generation: 0,
    };
    if index == 0 && running.domain.privileged {
        let dom0::Start { entry, start_info } = machine.start;
        running.start(StartRegisters::pvh(entry, start_info));
    }
    Ok(running)
}

fn apply_console_options(options: &Options) {
    stop::set_no_reboot(options.no_reboot);
    log::set_max_level(options.log_level);
    let (settings, on) = match (options.console_com2, options.com2) {
        (true, Some(com2)) => (Some((com2, console::serial::COM2)), true),
        _ => (
            Some((options.com1, console::serial::COM1)),
            options.console_com1,
        ),
    };
    if let Some((serial, customary)) = settings {
        console::serial::open(console::serial::LineSettings {
            base: serial.base.unwrap_or(customary),
            baud: serial.baud,
        });
    }
    console::set_serial(on);
    for problem in &options.problems {
        log::warn!("{problem}");
    }
}

/// Serial input comes by interrupt: ISA 4 for COM1 and COM3, 3 for the other two.
fn claim_console() {
    let Some(base) = console::serial::base() else {
        return;
    };
    let isa = if matches!(base, 0x2F8 | 0x2E8) { 3 } else { 4 };
    let (gsi, flags) =
        firmware::get().map_or((isa.into(), 0), |firmware| firmware.madt.isa_gsi(isa));
    let trigger = if flags >> 2 & 3 == 3 {
        Trigger::Level
    } else {
        Trigger::Edge
    };
    irq::claim_console(gsi, trigger, flags & 3 == 3);
    console::serial::enable_receive_interrupt();
    platform::console_input::poll();
}

/// A backend's description as a displayable value.
struct Describe<'a, B>(&'a B);

impl<B: Backend> core::fmt::Display for Describe<'_, B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.describe(f)
    }
}
