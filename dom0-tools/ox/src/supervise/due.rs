//! What is to be done about a domain, judged by its record and by what the hypervisor says.

use oxen_config::Action;
use oxen_config::domain::Actions;

use crate::host::DomainState;
use crate::records::{Phase, Record};

/// A life that is shorter, in seconds, is one in vain.
const SHORT_LIFE: u64 = 60;
/// So many lives in vain follow each other without a pause.
const FOR_FREE: u32 = 3;
/// Longest pause before a domain is made again, in seconds.
const LONGEST_PAUSE: u64 = 60;
/// A domain that could not be made again so often is given up.
pub const ATTEMPTS: u32 = 10;

/// When something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing, as far as one can see.
    Never,
    /// At this time, in seconds since dom0 started.
    At(u64),
    /// Now.
    Now,
}

/// When something is to be done about a domain. `domains` is what the hypervisor has.
pub fn due(record: &Record, domains: &[DomainState], now: u64) -> Due {
    let state = domains.iter().find(|state| state.uuid == record.uuid);
    let there = state.filter(|state| !state.dying);
    let something = match &record.phase {
        Phase::Running { domid, .. } => match there.filter(|state| state.domid == *domid) {
            None => true,
            // A suspended domain is being saved or will be resumed: that is up to whoever suspended it.
            Some(state) => state.shutdown.is_some_and(|reason| reason != "suspend"),
        },
        Phase::Kept { domid } => there.is_none_or(|state| state.domid != *domid),
        Phase::Restarting {
            old: None,
            not_before,
        } if *not_before > now => return Due::At(*not_before),
        Phase::Making
        | Phase::Ending { .. }
        | Phase::Renaming { .. }
        | Phase::Restarting { .. } => true,
    };
    if something { Due::Now } else { Due::Never }
}

/// What the configuration says about a reason of stopping. One without a name is treated as xl does it.
pub fn action(actions: &Actions, reason: &str) -> Action {
    match reason {
        "poweroff" => actions.on_poweroff,
        "reboot" => actions.on_reboot,
        "crash" => actions.on_crash,
        "watchdog" => actions.on_watchdog,
        "soft-reset" => actions.on_soft_reset,
        _ => Action::Destroy,
    }
}

/// How many lives were in vain, with the one that ends now.
pub fn in_vain(before: u32, since: u64, now: u64) -> u32 {
    if now.saturating_sub(since) < SHORT_LIFE {
        before.saturating_add(1)
    } else {
        0
    }
}

/// Seconds to wait before the next life: none at first, then longer and longer.
pub fn pause(in_vain: u32) -> u64 {
    match in_vain.checked_sub(FOR_FREE + 1) {
        None => 0,
        Some(more) => 1_u64
            .checked_shl(more)
            .map_or(LONGEST_PAUSE, |seconds| seconds.min(LONGEST_PAUSE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_gets_slower_and_a_long_life_forgives() {
        let pauses: Vec<_> = (0..12).map(pause).collect();
        assert_eq!(pauses, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
        assert_eq!(in_vain(7, 100, 159), 8);
        assert_eq!(in_vain(7, 100, 160), 0);
        assert_eq!(in_vain(u32::MAX, 100, 50), u32::MAX);
    }
}
