//! What a toolstack may make of a domain's CPUID (`XEN_DOMCTL_set_cpu_policy`): less than what all guests are shown, and
//! another topology.
//!
//! A domain without a policy of its own is shown the machine's leaves through the hypervisor's masks. A policy is a list of
//! leaves; each register of a known leaf says whether the policy takes bits away from what is shown, stands in its place, or
//! must not differ.

use alloc::vec::Vec;

use oxen_abi::Errno;

/// EAX, EBX, ECX, EDX.
pub type Values = [u32; 4];

/// A leaf's number in a list (`xen_cpuid_leaf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// What EAX asks for.
    pub leaf: u32,
    /// What ECX asks for; [`Index::NO_SUBLEAF`] where it makes no difference.
    pub subleaf: u32,
}

impl Index {
    /// `XEN_CPUID_NO_SUBLEAF`.
    pub const NO_SUBLEAF: u32 = u32::MAX;

    /// Of a leaf without sub-leaves.
    pub const fn plain(leaf: u32) -> Self {
        Self {
            leaf,
            subleaf: Self::NO_SUBLEAF,
        }
    }

    /// Of a sub-leaf.
    pub const fn sub(leaf: u32, subleaf: u32) -> Self {
        Self { leaf, subleaf }
    }

    /// What ECX is when the leaf is asked for.
    pub const fn ecx(self) -> u32 {
        match self.subleaf {
            Self::NO_SUBLEAF => 0,
            subleaf => subleaf,
        }
    }
}

/// How a policy's register meets what is shown without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Feature bits: those that are in both.
    Features,
    /// The policy's.
    Replaced,
    /// A number that the policy may make smaller.
    AtMost,
    /// What is shown, which depends on the vCPU or on the machine: the policy's value is of no account.
    Own,
    /// What is shown: the policy must say the same.
    Fixed,
}

use Rule::{AtMost, Features, Fixed, Own, Replaced};

/// The leaves that a policy may have, with the rules for EAX, EBX, ECX and EDX (SDM vol. 2A and APM vol. 3, CPUID).
const RULES: &[(u32, Option<u32>, [Rule; 4])] = &[
    (0x0, None, [AtMost, Fixed, Fixed, Fixed]),
    // Family and model; CLFLUSH size, number of processors and APIC ID.
    (0x1, None, [Replaced, Own, Features, Features]),
    (0x2, None, [Replaced; 4]),
    (0x4, None, [Replaced; 4]),
    (0x7, Some(0), [AtMost, Features, Features, Features]),
    (0x7, None, [Features; 4]),
    (0xB, None, [Own; 4]),
    (0xD, Some(1), [Features, Own, Features, Features]),
    (0xD, None, [Own; 4]),
    (0x16, None, [Own; 4]),
    (0x8000_0000, None, [AtMost, Fixed, Fixed, Fixed]),
    (0x8000_0001, None, [Replaced, Own, Features, Features]),
    (0x8000_0002, None, [Replaced; 4]),
    (0x8000_0003, None, [Replaced; 4]),
    (0x8000_0004, None, [Replaced; 4]),
    (0x8000_0005, None, [Replaced; 4]),
    (0x8000_0006, None, [Replaced; 4]),
    (0x8000_0007, None, [Own, Own, Own, Features]),
    // Address widths; features; number of cores.
    (0x8000_0008, None, [Own, Features, Replaced, Own]),
];

/// Bits that a list means nothing by: a CPU changes OSXSAVE, and the local APIC's in the two leaves that show it, by itself as its
/// guest runs; HTT goes with the number of processors, which is the hypervisor's, and libxl sets it for every guest.
const DYNAMIC: [(u32, usize, u32); 4] = [
    (0x1, 3, 1 << 28),
    (0x1, 2, 1 << 27),
    (0x1, 3, 1 << 9),
    (0x8000_0001, 3, 1 << 9),
];

/// Most leaves in a list: more than there are rules for, with all their sub-leaves.
pub const MOST_LEAVES: u32 = 128;

/// Leaves of the hypervisor itself, which it answers whatever a policy says (`XEN_CPUID_LEAF`, both places).
const fn is_hypervisors(leaf: u32) -> bool {
    leaf >> 16 == 0x4000
}

/// A domain's own policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(Vec<(Index, Values)>);

/// A leaf that a policy cannot have as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLeaf(pub Index);

impl Policy {
    /// The policy with one more leaf, or another value for one that it has. `shown` is what guests see there without a
    /// policy.
    ///
    /// # Errors
    /// The leaf, if it asks for more than `shown` has or for what no policy can change, or if there is no memory for it.
    pub fn set(&mut self, index: Index, values: Values, shown: Values) -> Result<(), BadLeaf> {
        if is_hypervisors(index.leaf) {
            return Ok(());
        }
        let Some(rules) = rules(index) else {
            // Of any other leaf a list may only say what is so.
            return if values == shown {
                Ok(())
            } else {
                Err(BadLeaf(index))
            };
        };
        for (register, rule) in rules.into_iter().enumerate() {
            let dynamic = dynamic(index.leaf, register);
            let (value, shown) = (values[register], shown[register]);
            let allowed = match rule {
                Features => value & !shown & !dynamic == 0,
                AtMost => value <= shown,
                Fixed => value == shown,
                Replaced | Own => true,
            };
            if !allowed {
                return Err(BadLeaf(index));
            }
        }
        match self.0.iter_mut().find(|(known, _)| *known == index) {
            Some((_, old)) => *old = values,
            None => {
                self.0.try_reserve(1).map_err(|_| BadLeaf(index))?;
                self.0.push((index, values));
            }
        }
        Ok(())
    }

    /// What the domain is shown of a leaf, given what it would be without a policy.
    pub fn apply(&self, leaf: u32, subleaf: u32, shown: Values) -> Values {
        // Beyond the last leaf that the policy has, nothing is there.
        let last = self.value(Index::plain(leaf & 0x8000_0000));
        if last.is_some_and(|last| leaf > last[0]) && !is_hypervisors(leaf) {
            return [0; 4];
        }
        let index = Index::sub(leaf, subleaf);
        let Some(values) = self.value(index).or_else(|| self.value(Index::plain(leaf))) else {
            return shown;
        };
        let Some(rules) = rules(index) else {
            return shown;
        };
        let mut result = shown;
        for (register, rule) in rules.into_iter().enumerate() {
            let dynamic = dynamic(leaf, register);
            let (value, place) = (values[register], &mut result[register]);
            *place = match rule {
                Features => *place & (value | dynamic),
                AtMost => value.min(*place),
                Replaced => value,
                Own | Fixed => *place,
            };
        }
        result
    }

    fn value(&self, index: Index) -> Option<Values> {
        let entry = self.0.iter().find(|(known, _)| *known == index);
        entry.map(|(_, values)| *values)
    }
}

fn rules(index: Index) -> Option<[Rule; 4]> {
    let fits = |subleaf: Option<u32>| subleaf.is_none_or(|subleaf| subleaf == index.subleaf);
    RULES
        .iter()
        .find(|(leaf, subleaf, _)| *leaf == index.leaf && fits(*subleaf))
        .map(|(_, _, rules)| *rules)
}

fn dynamic(leaf: u32, register: usize) -> u32 {
    DYNAMIC
        .iter()
        .filter(|(other, place, _)| (*other, *place) == (leaf, register))
        .fold(0, |bits, (_, _, bit)| bits | bit)
}

/// An MSR of a policy: those that Xen lists (`MSR_INTEL_PLATFORM_INFO`, `MSR_ARCH_CAPABILITIES`) show nothing here.
pub const MSRS: [u32; 2] = [0xCE, 0x10A];

/// Whether a policy may have the value.
///
/// # Errors
/// `Inval` for an MSR that is not in [`MSRS`], or a value that asks for something.
pub fn check_msr(index: u32, flags: u32, value: u64) -> Result<(), Errno> {
    if MSRS.contains(&index) && flags == 0 && value == 0 {
        Ok(())
    } else {
        Err(Errno::Inval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHOWN: Values = [0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69];

    #[test]
    fn features_can_be_taken_away_but_not_added() {
        let mut policy = Policy::default();
        let shown = [5, 6, 0b1011, 0b1100];
        assert_eq!(
            policy.set(Index::plain(1), [5, 6, 0b0011, 0b1000], shown),
            Ok(())
        );
        assert_eq!(policy.apply(1, 0, shown), [5, 6, 0b0011, 0b1000]);
        let more = policy.set(Index::plain(1), [5, 6, 0b0111, 0], shown);
        assert_eq!(more, Err(BadLeaf(Index::plain(1))));
        // The last good one stays.
        assert_eq!(policy.apply(1, 0, shown), [5, 6, 0b0011, 0b1000]);
    }

    #[test]
    fn the_vendor_is_the_machines() {
        let mut policy = Policy::default();
        assert!(policy.set(Index::plain(0), [1, 2, 3, 4], SHOWN).is_err());
        assert!(
            policy
                .set(Index::plain(0), [0xE, SHOWN[1], SHOWN[2], SHOWN[3]], SHOWN)
                .is_err()
        );
        assert_eq!(
            policy.set(Index::plain(0), [4, SHOWN[1], SHOWN[2], SHOWN[3]], SHOWN),
            Ok(())
        );
        // Leaves beyond the new end are gone.
        assert_eq!(policy.apply(7, 0, [1; 4]), [0; 4]);
        assert_eq!(policy.apply(4, 0, [1; 4]), [1; 4]);
        assert_eq!(policy.apply(0x4000_0001, 0, [1; 4]), [1; 4]);
    }

    #[test]
    fn bits_that_the_cpu_sets_by_itself_stay_as_they_are() {
        const OSXSAVE: u32 = 1 << 27;
        let mut policy = Policy::default();
        assert_eq!(
            policy.set(Index::plain(1), [0, 0, OSXSAVE | 1, 0], [0, 0, 1, 0]),
            Ok(())
        );
        assert_eq!(policy.apply(1, 0, [0, 0, 1, 0])[2], 1);
        assert_eq!(policy.apply(1, 0, [0, 0, 1 | OSXSAVE, 0])[2], 1 | OSXSAVE);
    }

    #[test]
    fn sub_leaves_are_apart() {
        let mut policy = Policy::default();
        assert_eq!(
            policy.set(Index::sub(7, 0), [0, 1, 1, 1], [1, 3, 3, 3]),
            Ok(())
        );
        assert_eq!(policy.apply(7, 0, [1, 3, 3, 3]), [0, 1, 1, 1]);
        assert_eq!(policy.apply(7, 1, [3; 4]), [3; 4]);
        assert!(
            policy
                .set(Index::plain(0x1234), [0, 0, 1, 0], [0; 4])
                .is_err()
        );
        assert_eq!(policy.set(Index::plain(5), [1; 4], [1; 4]), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// Whatever a toolstack sets, no guest is shown a feature that it would not be shown without.
        #[test]
        fn no_policy_shows_more_features(
            leaves in prop::collection::vec((any::<prop::sample::Index>(), 0u32..3, any::<Values>(), any::<Values>()), 0..20),
            shown in any::<Values>(),
        ) {
            let mut policy = Policy::default();
            for (place, subleaf, values, shown) in leaves {
                let leaf = RULES[place.index(RULES.len())].0;
                // Most are refused.
                let _ = policy.set(Index::sub(leaf, subleaf), values, shown);
                let masked: Values = core::array::from_fn(|i| values[i] & shown[i]);
                let _ = policy.set(Index::plain(leaf), masked, shown);
            }
            for (leaf, subleaf, rules) in RULES {
                // A sub-leaf that no other rule is for, where one is for any.
                let result = policy.apply(*leaf, subleaf.unwrap_or(9), shown);
                for register in 0..4 {
                    if rules[register] == Features {
                        prop_assert_eq!(result[register] & !shown[register], 0);
                    }
                }
            }
        }
    }
}
