//! What the worker of one guest's device keeps once it has opened what it needs: nothing.
//!
//! It has its devices open by then. From here on it is nobody, in a process that cannot become anybody else and opens nothing any more. A
//! guest that takes a worker over has what it had before: its own device. (The device of granted pages would still map what other guests
//! have granted to dom0, if their references are guessed: Linux has no way to bind it to one domain.)

use std::collections::BTreeMap;
use std::io;

use rustix::process::{DumpableBehavior, Gid, Uid, geteuid, set_dumpable_behavior};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::{Needs, files};

/// The user and group that nothing belongs to.
const NOBODY: u32 = 65534;
/// System calls of any worker: its devices, memory, and the end.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_ioctl,
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

/// Gives up all rights, in this thread and in those that it starts; of the system calls those in `more` and a few that all need are
/// left, others fail. With the last of root's numbers all capabilities go (capabilities(7)). Who was not root stays who it was.
///
/// # Errors
/// The kernel refuses: then the worker must not go on.
pub fn seal(more: &[i64]) -> io::Result<()> {
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_no_new_privs(true)?;
    if let Err(error) = files(&Needs::default()) {
        // Without Landlock the filter alone keeps it from opening any. Who started it has said so.
        log::debug!("files: {error}");
    }
    filter(more)
}

/// All other system calls fail from here on; what they would have been for is over. This also keeps the process from gaining rights.
fn filter(more: &[i64]) -> io::Result<()> {
    let calls = CALLS.iter().chain(more);
    let rules: BTreeMap<_, _> = calls.map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64);
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    /// In a thread: the other tests keep what they have.
    #[test]
    fn what_is_given_up_is_gone() {
        let done = std::thread::spawn(|| {
            let status = std::fs::File::open("/proc/thread-self/status").expect("procfs");
            super::seal(&[]).expect("the kernel lets go");
            let status = std::io::read_to_string(status).expect("it was open");
            let says = |line: &str| status.lines().any(|found| found == line);
            assert!(says("Seccomp:\t2") && says("NoNewPrivs:\t1"), "{status}");
            assert!(says("CapEff:\t0000000000000000"), "{status}");
            let root = rustix::process::Uid::ROOT;
            assert!(rustix::thread::set_thread_res_uid(root, root, root).is_err());
            assert!(std::fs::File::open("/proc/version").is_err());
        });
        done.join().expect("given up");
    }
}
