//! Atomics: the CPU's, or with the feature `loom` in tests those of loom, which tries all orders of what threads do.

#[cfg(not(all(test, feature = "loom")))]
pub use core::sync::atomic;
#[cfg(not(all(test, feature = "loom")))]
pub use spin::Mutex;

#[cfg(all(test, feature = "loom"))]
pub use all_orders::Mutex;
#[cfg(all(test, feature = "loom"))]
pub use loom::sync::atomic;

/// For tests in all orders.
#[cfg(all(test, feature = "loom"))]
pub mod all_orders {
    use loom::model::Builder;
    use loom::sync::MutexGuard;

    /// Tries all orders with at most so many moments at which a thread is held up though it could go on.
    pub fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(test);
    }

    /// Loom's lock with the face of `spin`'s.
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no test panics with a lock held")
        }
    }
}
