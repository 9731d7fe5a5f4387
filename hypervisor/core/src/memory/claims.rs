//! Memory that is kept for domains being built (`XENMEM_claim_pages`): of two builds that want the last page one fails
//! before it has taken any.

use oxen_abi::Errno;

/// Frames kept for one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim(u64);

impl Claim {
    /// How many there still are.
    pub const fn frames(self) -> u64 {
        self.0
    }
}

/// All claims together. Free frames are counted by the allocator, and told at each call.
#[derive(Debug, Default)]
pub struct Claims {
    outstanding: u64,
}

impl Claims {
    /// None.
    pub const fn new() -> Self {
        Self { outstanding: 0 }
    }

    /// Free frames that are kept for someone.
    pub const fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Keeps so many frames that a domain can come to own `wanted`; it has `owned` now. 0 ends the claim.
    ///
    /// # Errors
    /// `Inval` for a second claim, or for less than it owns; `NoMem` if not so many are free and unclaimed.
    pub fn set(
        &mut self,
        claim: &mut Claim,
        wanted: u64,
        owned: u64,
        free: u64,
    ) -> Result<(), Errno> {
        if wanted == 0 {
            self.outstanding -= claim.0;
            claim.0 = 0;
            return Ok(());
        }
        let missing = wanted.checked_sub(owned).ok_or(Errno::Inval)?;
        if claim.0 != 0 {
            return Err(Errno::Inval);
        }
        if missing > free.saturating_sub(self.outstanding) {
            return Err(Errno::NoMem);
        }
        claim.0 = missing;
        self.outstanding += missing;
        Ok(())
    }

    /// Whether `count` of the free frames may go to the claim's domain: its own part, and what nobody claims.
    pub const fn allow(&self, claim: Claim, count: u64, free: u64) -> bool {
        let for_it = free.saturating_sub(self.outstanding - claim.0);
        count <= for_it
    }

    /// `count` frames have gone to the claim's domain.
    pub const fn taken(&mut self, claim: &mut Claim, count: u64) {
        let part = if count < claim.0 { count } else { claim.0 };
        claim.0 -= part;
        self.outstanding -= part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_two_builds_that_want_the_last_page_one_fails_at_once() {
        let (mut claims, mut first, mut second) =
            (Claims::new(), Claim::default(), Claim::default());
        assert_eq!(claims.set(&mut first, 60, 0, 100), Ok(()));
        assert_eq!(claims.set(&mut second, 41, 0, 100), Err(Errno::NoMem));
        assert_eq!(claims.set(&mut second, 40, 0, 100), Ok(()));
        // Nobody else gets anything, and each gets its own.
        assert!(!claims.allow(Claim::default(), 1, 100));
        assert!(claims.allow(first, 60, 100) && !claims.allow(first, 61, 100));
    }

    #[test]
    fn a_claim_shrinks_as_frames_are_taken_and_goes_when_it_is_set_to_none() {
        let (mut claims, mut claim) = (Claims::new(), Claim::default());
        assert_eq!(claims.set(&mut claim, 10, 4, 100), Ok(()));
        assert_eq!(claims.set(&mut claim, 12, 4, 100), Err(Errno::Inval));
        claims.taken(&mut claim, 5);
        assert_eq!((claim.frames(), claims.outstanding()), (1, 1));
        claims.taken(&mut claim, 5);
        assert_eq!((claim.frames(), claims.outstanding()), (0, 0));
        assert_eq!(claims.set(&mut claim, 3, 4, 100), Err(Errno::Inval));
        assert_eq!(claims.set(&mut claim, 20, 4, 100), Ok(()));
        assert_eq!(claims.set(&mut claim, 0, 4, 100), Ok(()));
        assert_eq!((claim.frames(), claims.outstanding()), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// Whatever three domains ask for, what is claimed is there, and a claim's owner gets it.
        #[test]
        fn a_claim_is_kept(steps in prop::collection::vec((0usize..3, 0u8..3, 0u64..60), 1..80)) {
            const FRAMES: u64 = 100;
            let mut claims = Claims::new();
            let mut domains = [(Claim::default(), 0u64); 3];
            for (index, step, count) in steps {
                let free = FRAMES - domains.iter().map(|(_, owned)| owned).sum::<u64>();
                let (claim, owned) = &mut domains[index];
                match step {
                    0 => drop(claims.set(claim, count, *owned, free)),
                    1 if claims.allow(*claim, count, free) && count <= free => {
                        claims.taken(claim, count);
                        *owned += count;
                    }
                    1 => prop_assert!(count > claim.frames()),
                    _ => *owned -= count.min(*owned),
                }
                let free = FRAMES - domains.iter().map(|(_, owned)| owned).sum::<u64>();
                let sum: u64 = domains.iter().map(|(claim, _)| claim.frames()).sum();
                prop_assert_eq!(claims.outstanding(), sum);
                prop_assert!(sum <= free);
            }
        }
    }
}
