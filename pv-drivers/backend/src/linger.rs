//! How long is looked for the guest's next request before an event is waited for.
//!
//! A guest with one request at a time has the next one soon after its answer, and answers soon what it is sent. An event for it costs a
//! call of the hypervisor on the guest's side, and an interrupt and a few system calls here: more than to look for it meanwhile. How long
//! that may take is counted in the CPU's own ticks, as what it saves is. Where a look was in vain, because the guest has nothing more to
//! do or waits for the very CPU that looks, the next ones are left out: one, then three, at last [`MOST_LEFT_OUT`].

/// Ticks that a look takes at most: about what an event costs.
const PATIENCE: u64 = 40_000;
/// Looks that are left out at most after one that was in vain.
const MOST_LEFT_OUT: u32 = 255;

/// Whether to look.
#[derive(Debug, Default)]
pub struct Linger {
    /// Looks to be left out.
    left_out: u32,
    /// How many were left out last, before a look that was in vain.
    last: u32,
}

impl Linger {
    /// Whether the next look is not to be left out.
    pub const fn is_ready(&self) -> bool {
        self.left_out == 0
    }

    /// Whether to look now, and not to leave it out.
    pub const fn is_due(&mut self) -> bool {
        let due = self.is_ready();
        self.left_out = self.left_out.saturating_sub(1);
        due
    }

    /// Looks until `found` says that there is something: false if there is not, soon.
    pub fn look(&mut self, found: impl FnMut() -> bool) -> bool {
        self.look_by(oxen_xen::ticks, found)
    }

    fn look_by(&mut self, clock: impl Fn() -> u64, mut found: impl FnMut() -> bool) -> bool {
        let start = clock();
        loop {
            if found() {
                self.last = 0;
                return true;
            }
            if clock().wrapping_sub(start) > PATIENCE {
                break;
            }
            std::hint::spin_loop();
        }
        self.last = (2 * self.last + 1).min(MOST_LEFT_OUT);
        self.left_out = self.last;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that goes on by so much with every look at it.
    fn clock(step: u64) -> impl Fn() -> u64 {
        let now = Cell::new(u64::MAX - 1000);
        move || now.replace(now.get().wrapping_add(step))
    }

    /// How many of so many looks are made where nothing ever comes.
    fn made(linger: &mut Linger, looks: u32) -> u32 {
        let mut made = 0;
        for _ in 0..looks {
            if linger.is_due() {
                assert!(!linger.look_by(clock(1000), || false));
                made += 1;
            }
        }
        made
    }

    #[test]
    fn what_comes_soon_is_waited_for() {
        let mut looks = 0;
        let soon = || {
            looks += 1;
            looks == 30
        };
        assert!(Linger::default().look_by(clock(1000), soon));
        let mut looks = 0;
        let late = || {
            looks += 1;
            looks == 50
        };
        assert!(!Linger::default().look_by(clock(1000), late));
    }

    #[test]
    fn looks_in_vain_become_rare_and_a_good_one_makes_them_frequent_again() {
        let mut linger = Linger::default();
        assert_eq!(
            made(&mut linger, 1 + 1 + 1 + 3 + 1 + 7 + 1 + 15 + 1 + 31),
            5
        );
        assert_eq!(made(&mut linger, 64 + 128 + 256), 3);
        assert_eq!(made(&mut linger, 2560), 10);
        assert!(linger.look_by(clock(1), || true));
        assert_eq!(made(&mut linger, 7), 3);
    }
}
