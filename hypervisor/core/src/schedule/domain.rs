//! What a domain is entitled to: its vCPUs' weight, and the budget that a cap leaves them.

use alloc::sync::Arc;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{CAP_PERIOD, DEFAULT_WEIGHT, SLICE};
use crate::id::{DomainId, VcpuId};

/// Running time below which a budget is left to grow, in nanoseconds.
const LEAST_GRANT: u64 = 50_000;
/// Distance between the moments at which a domain's vCPUs ask for a new budget, in nanoseconds.
const STAGGER: u64 = 20_000;

/// Shares of a domain, as `XEN_DOMCTL_SCHEDOP_putinfo` sets them for credit2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Share of each of its vCPUs against other vCPUs; 256 unless set.
    pub weight: NonZeroU16,
    /// Most running time of all its vCPUs together, in percent of one CPU; 0 for no limit.
    pub cap: u16,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            weight: const { NonZeroU16::new(DEFAULT_WEIGHT).unwrap() },
            cap: 0,
        }
    }
}

/// A domain as the scheduler sees it; all atomics, so that its vCPUs on all CPUs share it.
pub struct Domain {
    id: DomainId,
    weight: AtomicU16,
    cap: AtomicU16,
    pub(super) vcpus: AtomicU32,
    /// Running time left, in nanoseconds; negative if more was used than there was.
    budget: AtomicI64,
    /// The period up to which the budget has been filled.
    period: AtomicU64,
}

/// What comes of asking for running time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// There is no cap.
    Unlimited,
    /// So many nanoseconds, to use or to give back.
    Granted(u64),
    /// Nothing before the given time.
    Empty(u64),
}

impl Domain {
    /// A domain with no vCPU yet.
    pub fn new(id: DomainId, params: Params) -> Arc<Self> {
        Arc::new(Self {
            id,
            weight: AtomicU16::new(params.weight.get()),
            cap: AtomicU16::new(params.cap),
            vcpus: AtomicU32::new(0),
            budget: AtomicI64::new(0),
            period: AtomicU64::new(0),
        })
    }

    /// Its number.
    pub fn id(&self) -> DomainId {
        self.id
    }

    /// The shares in force.
    pub fn params(&self) -> Params {
        Params {
            weight: NonZeroU16::new(self.weight()).unwrap_or(NonZeroU16::MIN),
            cap: self.cap.load(Relaxed),
        }
    }

    /// Sets the shares. Each CPU that runs one of its vCPUs heeds them from its next `pick` on, so interrupt those.
    pub fn set_params(&self, params: Params) {
        self.weight.store(params.weight.get(), Relaxed);
        self.cap.store(params.cap, Relaxed);
    }

    pub(super) fn weight(&self) -> u16 {
        self.weight.load(Relaxed)
    }

    /// Running time for a vCPU.
    pub(super) fn draw(&self, vcpu: VcpuId, now: u64) -> Draw {
        let cap = self.cap.load(Relaxed);
        if cap == 0 {
            return Draw::Unlimited;
        }
        let quota = CAP_PERIOD * u64::from(cap) / 100;
        let vcpus = u64::from(self.vcpus.load(Relaxed).max(1));
        let period = (now + self.phase()) / CAP_PERIOD;
        self.refill(period, quota);
        let least = LEAST_GRANT.min(quota);
        // Even parts, so that whoever comes first does not leave the others without.
        let part = (quota / vcpus).clamp(2 * LEAST_GRANT, SLICE);
        let mut left = self.budget.load(Relaxed);
        while left >= least as i64 {
            let all = left as u64;
            let grant = if all < part + least { all } else { part };
            let rest = (all - grant) as i64;
            match self
                .budget
                .compare_exchange_weak(left, rest, Relaxed, Relaxed)
            {
                Ok(_) => return Draw::Granted(grant),
                Err(now) => left = now,
            }
        }
        let missing = (least as i64).saturating_sub(left).max(1) as u64;
        let start = (period + missing.div_ceil(quota)) * CAP_PERIOD - self.phase();
        // In turn, as the first to ask may take all of a small budget.
        let turn = (u64::from(vcpu.0) + period) % vcpus;
        Draw::Empty(start + turn * STAGGER)
    }

    /// Gives back what was granted and not used.
    pub(super) fn give_back(&self, nanos: u64) {
        self.budget.fetch_add(nanos as i64, Relaxed);
    }

    /// Charges what was used beyond the grant.
    pub(super) fn overdraw(&self, nanos: u64) {
        self.budget.fetch_sub(nanos as i64, Relaxed);
    }

    /// Adds the quota of each period begun. Of what was not used one quota stays: a vCPU that had to wait for a CPU gets
    /// its share all the same, and nobody saves up for more than one period.
    fn refill(&self, period: u64, quota: u64) {
        let filled = self.period.load(Relaxed);
        if period <= filled
            || self
                .period
                .compare_exchange(filled, period, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let added = quota.saturating_mul(period - filled).min(i64::MAX as u64) as i64;
        let mut left = self.budget.load(Relaxed);
        loop {
            let filled = left.saturating_add(added).min(2 * quota as i64);
            match self
                .budget
                .compare_exchange_weak(left, filled, Relaxed, Relaxed)
            {
                Ok(_) => break,
                Err(now) => left = now,
            }
        }
    }

    /// Domains' periods begin at different moments, so that not all capped vCPUs come back at once.
    fn phase(&self) -> u64 {
        u64::from(self.id.0) * 1_100_000 % CAP_PERIOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capped(cap: u16, vcpus: u32) -> Arc<Domain> {
        let domain = Domain::new(
            DomainId(3),
            Params {
                cap,
                ..Params::default()
            },
        );
        domain.vcpus.store(vcpus, Relaxed);
        domain
    }

    #[test]
    fn no_cap_no_limit() {
        assert_eq!(capped(0, 1).draw(VcpuId(0), 5), Draw::Unlimited);
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_granted() {
        let domain = capped(10, 1);
        let now = 1_000 * CAP_PERIOD;
        while let Draw::Granted(_) = domain.draw(VcpuId(0), now) {}
        domain.overdraw(5 * CAP_PERIOD / 10);
        let Draw::Empty(until) = domain.draw(VcpuId(0), now) else {
            panic!("nothing is left");
        };
        assert!(until >= now + 5 * CAP_PERIOD && until <= now + 7 * CAP_PERIOD);
        assert_eq!(
            domain.draw(VcpuId(0), until - 1_000_000),
            Draw::Empty(until)
        );
        assert!(matches!(domain.draw(VcpuId(0), until), Draw::Granted(_)));
    }

    proptest! {
        #[test]
        fn grants_never_exceed_the_quotas_of_the_periods(
            cap in 1u16..1600,
            vcpus in 1u32..40,
            steps in proptest::collection::vec((0u64..3_000_000, 0u16..40, 0u64..100), 1..400),
        ) {
            let domain = capped(cap, vcpus);
            let quota = CAP_PERIOD * u64::from(cap) / 100;
            let start = 77 * CAP_PERIOD;
            let (mut now, mut used) = (start, 0);
            for (step, vcpu, percent) in steps {
                now += step;
                match domain.draw(VcpuId(vcpu), now) {
                    Draw::Granted(grant) => {
                        let spent = grant * percent / 100;
                        used += spent;
                        domain.give_back(grant - spent);
                    }
                    Draw::Empty(until) => prop_assert!(until > now),
                    Draw::Unlimited => prop_assert!(false),
                }
            }
            let periods = (now - start) / CAP_PERIOD + 1;
            prop_assert!(used <= (periods + 2) * quota, "{used} in {periods} periods of {quota}");
        }
    }
}
