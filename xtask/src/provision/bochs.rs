//! Bochs 3.0, built once from Debian's source package: the packaged one is a slow debugger build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{cache, packages, source};
use crate::host;
use crate::progress::Step;

/// Where VMX is emulated whole, fast, and without a display.
const OPTIONS: &[&str] = &[
    "--enable-x86-64",
    "--enable-smp",
    "--enable-vmx=2",
    "--enable-svm",
    "--enable-avx",
    "--enable-evex",
    "--enable-all-optimizations",
    "--enable-handlers-chaining",
    "--enable-long-phy-address",
    "--enable-e1000",
    "--enable-ne2000",
    "--enable-protection-keys",
    "--enable-cet",
    "--enable-configurable-msrs",
    "--disable-plugins",
    "--with-nogui",
    "--disable-docbook",
    // Its report of the speed is written by a signal handler, which waits for ever for the log's lock if it comes while a
    // line is being written.
    "--disable-show-ips",
];

/// Corrections of the emulator: a file of its source, a text that occurs there once, and what takes its place.
const CORRECTIONS: &[(&str, &str, &str)] = &[
    // With several CPUs, the instruction pointer after an exception or a VM exit is not noted as the one to go back to (with
    // one CPU the loop in cpu.cc does it). A VM exit at the first instruction of an exception's handler then saves the
    // address of the instruction that faulted, with the handler's CS and stack: guests die of it every few minutes.
    (
        "main.cc",
        "          BX_CPU(processor)->icount++;\n          run = false;\n",
        "          BX_CPU(processor)->icount++;\n          \
         BX_CPU(processor)->prev_rip = BX_CPU(processor)->gen_reg[BX_64BIT_REG_RIP].rrx;\n          run = false;\n",
    ),
    // That code is returned to by longjmp and reads variables which changed since setjmp: the compiler may take them for
    // unchanged, and does, so that whatever CPU it was, the first one's instruction pointer was noted. Time has passed when
    // all CPUs have had as much of it, see the next one.
    (
        "main.cc",
        "        Bit32u executed = 0, processor = 0;\n        bool run = true;\n",
        "        volatile Bit32u processor = 0;\n        volatile bool run = true;\n        \
         static int used[BX_MAX_SMP_THREADS_SUPPORTED];\n",
    ),
    // With several CPUs, each ran to its next branch in its turn, or counted as having run 16 instructions if it was halted, and
    // the mean of them passed as time: an instruction beside a halted CPU took two ticks, one of a long copy half a tick. Here
    // each CPU has a tick for each of its instructions, as with one CPU; what it ran too far is taken off its next turns.
    (
        "main.cc",
        "           if (n == 0) n = quantum; // the CPU was halted\n           executed += n;\n\n           \
         if (++processor == BX_SMP_PROCESSORS) {\n             processor = 0;\n             \
         BX_TICKN(executed / BX_SMP_PROCESSORS);\n             executed %= BX_SMP_PROCESSORS;\n           }\n",
        "           used[processor] += n == 0 ? quantum : (int)n;\n           \
         while (used[processor] >= quantum) {\n             used[processor] -= quantum;\n             \
         processor = (processor + 1) % BX_SMP_PROCESSORS;\n             \
         if (processor == 0) BX_TICKN(quantum);\n           }\n",
    ),
    // Whether a guest's flags mask interrupts is decided at its entry while the CPU still counts as outside of guests: one that
    // runs with interrupts off was not left for the machine's interrupts, and those of a CPU whose guest asks for something
    // again and again in that state stayed pending for ever.
    (
        "cpu/vmx.cc",
        "  BX_CPU_THIS_PTR in_vmx_guest = true;\n\n  unmask_event(BX_EVENT_INIT);\n",
        "  BX_CPU_THIS_PTR in_vmx_guest = true;\n  handleInterruptMaskChange();\n\n  \
         unmask_event(BX_EVENT_INIT);\n",
    ),
    // A line in the log for each VM entry of a guest whose interrupts the CPU delivers.
    (
        "cpu/vapic.cc",
        "BX_INFO((\"Pending Virtual Interrupt Vector",
        "BX_DEBUG((\"Pending Virtual Interrupt Vector",
    ),
    (
        "cpu/vapic.cc",
        "BX_INFO((\"Clear Virtual Interrupt Vector",
        "BX_DEBUG((\"Clear Virtual Interrupt Vector",
    ),
];

/// The cache's folder, renamed with each change of what is built.
const FOLDER: &str = "bochs-3.0-corrected-5";

/// The binary's place within its folder of the cache.
const BINARY: &str = "bin/bochs";

/// The binary, built if it is not in the cache.
///
/// # Errors
/// The source cannot be had, or does not build.
pub fn binary() -> Result<PathBuf> {
    let cached = cached();
    if cached.exists() {
        return Ok(cached);
    }
    packages()?;
    if !host::is_debian() {
        bail!(
            "Bochs 3.0 is missing: build it with {}, corrected as xtask/src/provision/bochs.rs says, and give its path with --bochs",
            OPTIONS.join(" ")
        );
    }
    Ok(cache::folder(FOLDER, build)?.join(BINARY))
}

/// Where the binary is or would be.
pub fn cached() -> PathBuf {
    host::cache().join(FOLDER).join(BINARY)
}

fn build(work: &Path) -> Result<()> {
    let step = Step::start("building Bochs 3.0 from Debian's source (a few minutes, once)");
    let tree = work.join("source");
    source::unpack("trixie", "bochs", &tree)?;
    correct(&tree)?;
    step.detail("configure");
    source::configure(&tree, OPTIONS)?;
    step.detail("make");
    source::make(&tree, &[])?;
    fs::create_dir(work.join("bin"))?;
    fs::copy(tree.join("bochs"), work.join(BINARY))?;
    fs::remove_dir_all(tree)?;
    step.done();
    Ok(())
}

fn correct(tree: &Path) -> Result<()> {
    for (file, wrong, right) in CORRECTIONS {
        let path = tree.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("Bochs's {file} cannot be read"))?;
        if text.matches(wrong).count() != 1 {
            bail!("Bochs's {file} is not the one that is known: its correction does not fit");
        }
        fs::write(&path, text.replace(wrong, right))
            .with_context(|| format!("Bochs's {file} cannot be corrected"))?;
    }
    Ok(())
}
