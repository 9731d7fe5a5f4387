//! Time that vCPUs spend in each run state (`public/vcpu.h`).

use oxen_abi::vcpu::{RUNSTATE_SIZE, RUNSTATE_SIZE_NARROW};

/// A vCPU's run state, by its number in the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunstateKind {
    /// It runs.
    Running = 0,
    /// It could run, but another has the CPU.
    Runnable = 1,
    /// It waits for an event.
    Blocked = 2,
    /// It is not started, or stopped.
    Offline = 3,
}

/// Time that a vCPU has spent in each state, in nanoseconds of system time.
#[derive(Clone, Copy, Debug)]
pub struct Runstate {
    state: RunstateKind,
    entered: u64,
    times: [u64; 4],
}

impl Runstate {
    /// Offline since `now`, in nanoseconds of system time.
    pub const fn new(now: u64) -> Self {
        Self {
            state: RunstateKind::Offline,
            entered: now,
            times: [0; 4],
        }
    }

    /// The state now.
    pub const fn state(&self) -> RunstateKind {
        self.state
    }

    /// Time spent in a state before the present one was entered.
    pub const fn time_in(&self, state: RunstateKind) -> u64 {
        self.times[state as usize]
    }

    /// Time spent in a state until `now`.
    pub fn spent(&self, state: RunstateKind, now: u64) -> u64 {
        let present = if state == self.state {
            now.saturating_sub(self.entered)
        } else {
            0
        };
        self.time_in(state).saturating_add(present)
    }

    /// Changes the state; returns whether it did change, that is, whether the guest's copy is out of date.
    ///
    /// A `now` before the last change, as CPUs whose clocks disagree a little may give, counts as no time passed.
    pub fn enter(&mut self, state: RunstateKind, now: u64) -> bool {
        if state == self.state {
            return false;
        }
        let now = now.max(self.entered);
        let spent = &mut self.times[self.state as usize];
        *spent = spent.saturating_add(now - self.entered);
        self.state = state;
        self.entered = now;
        true
    }

    /// The same with the time until `now` in the present state, for those who ask (`VCPUOP_get_runstate_info`). A guest that
    /// watches the area that it registered adds that time itself.
    pub fn until(mut self, now: u64) -> Self {
        self.times[self.state as usize] = self.spent(self.state, now);
        self
    }

    /// The guest's `vcpu_runstate_info` (`public/vcpu.h`).
    pub fn to_bytes(&self) -> [u8; RUNSTATE_SIZE] {
        let mut out = [0; RUNSTATE_SIZE];
        out[0..4].copy_from_slice(&(self.state as u32).to_le_bytes());
        out[8..16].copy_from_slice(&self.entered.to_le_bytes());
        for (field, time) in out[16..].chunks_exact_mut(8).zip(self.times) {
            field.copy_from_slice(&time.to_le_bytes());
        }
        out
    }

    /// The same for a 32-bit guest, which has no padding behind the state.
    pub fn to_narrow_bytes(&self) -> [u8; RUNSTATE_SIZE_NARROW] {
        let wide = self.to_bytes();
        let mut out = [0; RUNSTATE_SIZE_NARROW];
        out[..4].copy_from_slice(&wide[..4]);
        out[4..].copy_from_slice(&wide[8..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RunstateKind::{Blocked, Offline, Runnable, Running};
    use proptest::prelude::*;

    #[test]
    fn states_add_up_to_the_time_passed() {
        let mut runstate = Runstate::new(100);
        assert!(runstate.enter(Running, 150));
        assert!(!runstate.enter(Running, 160));
        assert!(runstate.enter(Blocked, 250));
        let times = [Running, Runnable, Blocked, Offline].map(|state| runstate.time_in(state));
        assert_eq!(times, [100, 0, 0, 50]);
        assert_eq!(runstate.spent(Blocked, 260), 10);
        assert_eq!(runstate.spent(Running, 260), 100);
        let bytes = runstate.to_bytes();
        assert_eq!(bytes[0..8], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..16], 250u64.to_le_bytes());
        assert_eq!(bytes[16..24], 100u64.to_le_bytes());
        assert_eq!(bytes[40..48], 50u64.to_le_bytes());
        let narrow = runstate.to_narrow_bytes();
        assert_eq!((&narrow[..4], &narrow[4..]), (&bytes[..4], &bytes[8..]));
        let asked = runstate.until(260).to_bytes();
        assert_eq!(asked[8..16], 250u64.to_le_bytes());
        assert_eq!(asked[32..40], 10u64.to_le_bytes());
        assert_eq!(asked[16..32], bytes[16..32]);
    }

    proptest! {
        #[test]
        fn the_sum_is_the_time_since_the_start_and_never_falls(
            start in 0u64..1 << 40,
            changes in proptest::collection::vec((0usize..4, 0u64..1 << 40), 0..50),
        ) {
            let mut runstate = Runstate::new(start);
            let mut last = 0;
            for (state, now) in changes {
                runstate.enter([Running, Runnable, Blocked, Offline][state], now);
                let sum: u64 = runstate.times.iter().sum();
                prop_assert_eq!(sum, runstate.entered - start);
                prop_assert!(sum >= last);
                last = sum;
            }
        }
    }
}
