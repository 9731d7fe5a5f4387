//! A queue behind its lock, and what other CPUs may know of it without.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::{Mutex, MutexGuard};

use super::queue::RunQueue;
use crate::id::CpuId;

/// A queue and what other CPUs may know of it without its lock.
pub struct Queue {
    /// Weights of all that run or are ready.
    load: AtomicU64,
    /// Common virtual time from which on others should pull; of use only while the CPU is in the overloaded set.
    pull_at: AtomicU64,
    /// Somebody waits for this CPU.
    waited_for: AtomicBool,
    inner: Mutex<RunQueue>,
}

impl Queue {
    pub fn new(cpu: CpuId) -> Self {
        Self {
            load: AtomicU64::new(0),
            pull_at: AtomicU64::new(0),
            waited_for: AtomicBool::new(false),
            inner: Mutex::new(RunQueue::new(cpu)),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, RunQueue> {
        self.inner.lock()
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, RunQueue>> {
        self.inner.try_lock()
    }

    pub fn load(&self) -> u64 {
        self.load.load(Ordering::Relaxed)
    }

    pub fn pull_at(&self) -> u64 {
        self.pull_at.load(Ordering::Relaxed)
    }

    pub fn is_waited_for(&self) -> bool {
        self.waited_for.load(Ordering::Relaxed)
    }

    pub fn publish(&self, queue: &RunQueue) {
        self.load.store(queue.load(), Ordering::Relaxed);
        self.pull_at.store(queue.pull_at(), Ordering::Relaxed);
        self.waited_for
            .store(!queue.ready.is_empty(), Ordering::Relaxed);
    }
}
