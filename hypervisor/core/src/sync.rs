//! Atomics: the CPU's, or with the feature `loom` in tests those of loom, which tries all orders of what threads do.

#[cfg(not(all(test, feature = "loom")))]
pub use core::sync::atomic;

#[cfg(all(test, feature = "loom"))]
pub use loom::sync::atomic;

/// For tests in all orders.
#[cfg(all(test, feature = "loom"))]
pub mod all_orders {
    use loom::model::Builder;

    /// Tries all orders with at most so many moments at which a thread is held up though it could go on.
    pub fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(test);
    }
}
