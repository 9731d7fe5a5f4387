//! What a worker keeps once it has opened what it needs: nothing.
//!
//! It has its disk, the event channels and the grant device open by then. From here on it is nobody, in a process that cannot become
//! anybody else and opens nothing any more. A guest that takes a worker over has what it had before: its own disk. (The device of
//! granted pages would still map what other guests have granted to dom0, if their references are guessed: Linux has no way to bind it
//! to one domain.)

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65534;
/// System calls of a worker at work: its devices, memory, and the end.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_ioctl,
    libc::SYS_io_uring_enter,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives up all rights. Memory comes from the kernel and data through descriptors that are open.
///
/// # Errors
/// The kernel refuses: then the worker must not go on.
pub fn give_up() -> io::Result<()> {
    // SAFETY: system calls that change this process's identity and flags, and no memory.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    filter()
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// All other system calls fail from here on; what they would have been for is over. This also keeps the process from gaining rights.
fn filter() -> io::Result<()> {
    let rules: BTreeMap<_, _> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64);
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}
