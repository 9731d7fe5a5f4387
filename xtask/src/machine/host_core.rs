//! One core of the host for all threads of an emulator.
//!
//! QEMU's TCG runs each CPU in a thread, and an instruction of one changes another's state without a lock: FLDENV, FRSTOR,
//! FXRSTOR and XRSTOR clear IGNNE# in the *first* CPU's `hflags2` (`target/i386/tcg/sysemu/fpu_helper.c`,
//! `cpu_clear_ignne`; in 7.2 and in later versions), where that CPU keeps whether it is in a guest with nested paging, too. Where
//! it enters a guest between the read and the write, the guest runs without nested paging, on the machine's own memory, and
//! ends by a triple fault: with one guest that repeats CPUID on the first CPU and one that repeats FLDENV on the second,
//! within a second. The change is one instruction, so that on one core no other thread can come in between. (All CPUs in one
//! thread, `thread=single`, is no way out: each then runs for up to 100 ms while the others' timers are due.)

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Emulators of this process on each core.
static IN_USE: Mutex<[u32; CpuSet::MAX_CPU]> = Mutex::new([0; CpuSet::MAX_CPU]);

/// A core that an emulator has, among as few others as possible.
pub(super) struct HostCore(usize);

impl HostCore {
    /// The least used of the cores that the calling thread may run on. Where several are, processes begin with different ones.
    pub(super) fn claim() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|&core| allowed.is_set(core))
            .collect();
        let first = std::process::id() as usize % cores.len().max(1);
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, &core) = (cores.iter().cycle().skip(first).take(cores.len()))
            .enumerate()
            .min_by_key(|&(order, &core)| (in_use[core], order))
            .ok_or_else(|| io::Error::other("this thread may run on no core"))?;
        in_use[core] += 1;
        Ok(Self(core))
    }

    /// Starts a process on it: children run where the thread runs that makes them.
    pub(super) fn start<R>(&self, start: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        only.set(self.0);
        sched_setaffinity(None, &only)?;
        let result = start();
        sched_setaffinity(None, &before)?;
        result
    }
}

impl Drop for HostCore {
    fn drop(&mut self) {
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    // One test, as the counts are the process's.
    #[test]
    fn each_has_a_core_of_its_own_and_the_parent_keeps_all() {
        let before = sched_getaffinity(None).expect("the thread has an affinity");
        let held: Vec<_> = (0..before.count())
            .map(|_| HostCore::claim().expect("there is a core"))
            .collect();
        let distinct: std::collections::HashSet<_> = held.iter().map(|core| core.0).collect();
        assert_eq!(distinct.len(), held.len());
        let grep = || {
            Command::new("grep")
                .args(["Cpus_allowed_list", "/proc/self/status"])
                .output()
        };
        let said = held[0].start(grep).expect("grep starts");
        let text = String::from_utf8_lossy(&said.stdout);
        let expected = held[0].0.to_string();
        assert_eq!(text.split_whitespace().last(), Some(expected.as_str()));
        assert_eq!(sched_getaffinity(None).ok(), Some(before));
    }
}
