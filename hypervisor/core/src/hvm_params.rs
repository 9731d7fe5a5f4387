//! HVM parameters: numbers that a domain and its builder leave for each other, and a few that the hypervisor heeds
//! (`public/hvm/params.h`). Who may set and read which, and to what, is as in Xen 4.17.

use core::sync::atomic::{AtomicU64, Ordering};

use oxen_abi::Errno;
use oxen_abi::hvm::{CALLBACK_TYPE_VECTOR, param};
use oxen_abi::sched::reason;

/// Lowest vector that is not an exception.
const LOWEST_VECTOR: u64 = 0x10;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The domain itself.
    Own,
    /// The control domain, about another.
    Control,
}

/// A domain's parameters.
#[derive(Debug)]
pub struct Params([AtomicU64; param::COUNT as usize]);

impl Params {
    /// All unset, and a triple fault is a crash. (Xen makes it a reboot; a guest that dies early would then do so again and
    /// again.)
    pub const fn new() -> Self {
        let mut values = [const { AtomicU64::new(0) }; param::COUNT as usize];
        values[param::TRIPLE_FAULT_REASON as usize] = AtomicU64::new(reason::CRASH as u64);
        Self(values)
    }

    /// A parameter's value, for the hypervisor; 0 if it was never set, or is none.
    pub fn value(&self, index: u32) -> u64 {
        self.0
            .get(index as usize)
            .map_or(0, |value| value.load(Ordering::Acquire))
    }

    /// `HVMOP_get_param`.
    ///
    /// # Errors
    /// `Inval` for what is no parameter (any more), `Perm` for what the domain itself may not read.
    pub fn get(&self, index: u32, asker: Asker) -> Result<u64, Errno> {
        check_index(index)?;
        let is_readable =
            param::GUEST_WRITABLE.contains(&index) || param::GUEST_READABLE.contains(&index);
        if asker == Asker::Own && !is_readable {
            return Err(Errno::Perm);
        }
        Ok(match index {
            // The place without the size.
            param::VM86_TSS => self.value(param::VM86_TSS_SIZED) & 0xFFFF_FFFF,
            _ => self.value(index),
        })
    }

    /// `HVMOP_set_param`.
    ///
    /// # Errors
    /// As for [`Params::get`]; `Exist` for another value of what is set once; `Inval` for a value that has no meaning; `NoDev`
    /// and `OpNotSupp` for what there is none of: an ACPI timer, sleep, views of memory.
    pub fn set(&self, index: u32, value: u64, asker: Asker) -> Result<(), Errno> {
        check_index(index)?;
        if asker == Asker::Own && !param::GUEST_WRITABLE.contains(&index) {
            return Err(Errno::Perm);
        }
        let is_kept = param::SET_ONCE.contains(&index);
        let may_be = |old: u64| !is_kept || old == 0 || old == value;
        if !may_be(self.value(index)) {
            return Err(Errno::Exist);
        }
        let (index, stored) = check_value(index, value)?;
        let place = self.0.get(index as usize).ok_or(Errno::Inval)?;
        place
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                may_be(old).then_some(stored)
            })
            .map(|_| ())
            .map_err(|_| Errno::Exist)
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::new()
    }
}

fn check_index(index: u32) -> Result<(), Errno> {
    if index >= param::COUNT || param::DEPRECATED.contains(&index) {
        Err(Errno::Inval)
    } else {
        Ok(())
    }
}

/// What is stored where for a value that is allowed.
fn check_value(index: u32, value: u64) -> Result<(u32, u64), Errno> {
    let meaningful = |holds: bool| if holds { Ok(()) } else { Err(Errno::Inval) };
    let nothing_but_0 = if value == 0 {
        Ok(())
    } else {
        Err(Errno::OpNotSupp)
    };
    match index {
        param::CALLBACK_IRQ => {
            let is_vector = value >> 56 == CALLBACK_TYPE_VECTOR;
            meaningful(!is_vector || value & 0xFF >= LOWEST_VECTOR)?;
        }
        param::TIMER_MODE => meaningful(value <= param::TIMER_MODE_MAX)?,
        // Its base features, which no value is without, are not there.
        param::VIRIDIAN => meaningful(false)?,
        param::ACPI_S_STATE => nothing_but_0?,
        param::ACPI_IOPORTS_LOCATION => return Err(Errno::NoDev),
        param::ALTP2M => {
            meaningful(value <= 3)?;
            nothing_but_0?;
        }
        param::TRIPLE_FAULT_REASON => meaningful(value <= reason::MAX.into())?,
        param::NR_IOREQ_SERVER_PAGES => {
            meaningful((1..=param::IOREQ_SERVER_PAGES_MAX).contains(&value))?;
        }
        param::X87_FIP_WIDTH => meaningful(matches!(value, 0 | 4 | 8))?,
        param::MCA_CAP => meaningful(value == 0)?,
        param::VM86_TSS => {
            meaningful(value >> 32 == 0)?;
            let size = if value == 0 { 0 } else { param::TSS_SIZE_OLD };
            return Ok((param::VM86_TSS_SIZED, value | size << 32));
        }
        param::VM86_TSS_SIZED => {
            let size = value >> 32;
            meaningful(size >= param::TSS_SIZE)?;
            let size = size.min(param::TSS_SIZE_MAX);
            return Ok((index, value & 0xFFFF_FFFF | size << 32));
        }
        _ => {}
    }
    Ok((index, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_domain_sets_and_reads_what_is_its_own() {
        let params = Params::new();
        for index in param::GUEST_WRITABLE {
            let value = match index {
                param::CALLBACK_IRQ => 2 << 56 | 0xF3,
                param::VM86_TSS_SIZED => 200 << 32 | 0x1000,
                param::ACPI_IOPORTS_LOCATION => {
                    assert_eq!(params.set(index, 1, Asker::Own), Err(Errno::NoDev));
                    continue;
                }
                _ => 8,
            };
            assert_eq!(params.set(index, value, Asker::Own), Ok(()), "{index}");
        }
        assert_eq!(params.get(param::STORE_EVTCHN, Asker::Own), Ok(8));
        assert_eq!(
            params.set(param::STORE_PFN, 1, Asker::Own),
            Err(Errno::Perm)
        );
        assert_eq!(params.set(param::STORE_PFN, 5, Asker::Control), Ok(()));
        assert_eq!(params.get(param::STORE_PFN, Asker::Own), Ok(5));
        assert_eq!(params.get(param::IDENT_PT, Asker::Own), Err(Errno::Perm));
        assert_eq!(params.get(param::IDENT_PT, Asker::Control), Ok(0));
    }

    #[test]
    fn what_is_no_parameter_is_refused_to_all() {
        let params = Params::new();
        for index in param::DEPRECATED
            .into_iter()
            .chain([param::COUNT, u32::MAX])
        {
            for asker in [Asker::Own, Asker::Control] {
                assert_eq!(params.get(index, asker), Err(Errno::Inval));
                assert_eq!(params.set(index, 0, asker), Err(Errno::Inval));
            }
        }
    }

    #[test]
    fn some_keep_their_first_value() {
        let params = Params::new();
        for index in [
            param::IOREQ_PFN,
            param::BUFIOREQ_PFN,
            param::IOREQ_SERVER_PFN,
        ] {
            let set = |value| params.set(index, value, Asker::Control);
            assert_eq!((set(0), set(7), set(7)), (Ok(()), Ok(()), Ok(())));
            assert_eq!((set(8), set(0)), (Err(Errno::Exist), Err(Errno::Exist)));
            assert_eq!(params.get(index, Asker::Control), Ok(7));
        }
    }

    #[test]
    fn values_without_a_meaning_are_refused() {
        let params = Params::new();
        for (index, value, error) in [
            (param::CALLBACK_IRQ, 2 << 56 | 0xF, Errno::Inval),
            (param::TIMER_MODE, 4, Errno::Inval),
            (param::VIRIDIAN, 1, Errno::Inval),
            (param::ACPI_S_STATE, 3, Errno::OpNotSupp),
            (param::ALTP2M, 4, Errno::Inval),
            (param::ALTP2M, 1, Errno::OpNotSupp),
            (param::TRIPLE_FAULT_REASON, 6, Errno::Inval),
            (param::NR_IOREQ_SERVER_PAGES, 0, Errno::Inval),
            (param::NR_IOREQ_SERVER_PAGES, 65, Errno::Inval),
            (param::X87_FIP_WIDTH, 2, Errno::Inval),
            (param::MCA_CAP, 1, Errno::Inval),
            (param::VM86_TSS, 1 << 32, Errno::Inval),
            (param::VM86_TSS_SIZED, 103 << 32, Errno::Inval),
        ] {
            assert_eq!(
                params.set(index, value, Asker::Control),
                Err(error),
                "{index}"
            );
            assert_ne!(params.value(index), value.max(1), "{index}");
        }
        for (index, value) in [
            (param::ALTP2M, 0),
            (param::TIMER_MODE, 3),
            (param::ACPI_S_STATE, 0),
            (param::NR_IOREQ_SERVER_PAGES, 64),
        ] {
            assert_eq!(params.set(index, value, Asker::Control), Ok(()), "{index}");
        }
    }

    #[test]
    fn the_task_segment_has_one_place_and_a_size() {
        let params = Params::new();
        let set = |index, value| params.set(index, value, Asker::Own);
        let get = |index| params.get(index, Asker::Own);
        assert_eq!(set(param::VM86_TSS, 0x1000), Ok(()));
        assert_eq!(get(param::VM86_TSS_SIZED), Ok(128 << 32 | 0x1000));
        assert_eq!(set(param::VM86_TSS_SIZED, u64::MAX), Ok(()));
        assert_eq!(
            get(param::VM86_TSS_SIZED),
            Ok(param::TSS_SIZE_MAX << 32 | 0xFFFF_FFFF)
        );
        assert_eq!(get(param::VM86_TSS), Ok(0xFFFF_FFFF));
    }

    proptest! {
        #[test]
        fn a_domain_never_changes_what_it_may_not(
            calls in proptest::collection::vec((0u32..45, any::<u64>()), 0..100),
        ) {
            let params = Params::new();
            for (index, value) in calls {
                let result = params.set(index, value, Asker::Own);
                if result.is_ok() {
                    prop_assert!(param::GUEST_WRITABLE.contains(&index));
                }
            }
            for index in (0..param::COUNT).filter(|index| !param::GUEST_WRITABLE.contains(index)) {
                prop_assert_eq!(params.value(index), Params::new().value(index));
            }
        }
    }
}
