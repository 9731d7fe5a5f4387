//! What CPUID shows to guests, for the control domain: the machine's policies by `sysctl`, a domain's own by `domctl`.

use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::cpu_policy::{self, Index, MSRS, Policy, Values};

use super::Outcome;
use super::arguments::{Argument, write_bytes};
use crate::domain::Domain;
use crate::vcpu::Running;
use crate::vcpu::cpuid::{self, View};
use crate::virt::Vcpu;

/// Bytes of `xen_cpuid_leaf` and of `xen_msr_entry`.
const LEAF: u64 = 24;
const MSR: u64 = 16;

/// Leaf, sub-leaf and register of each word (`public/arch-x86/cpufeatureset.h`).
const WORDS: [(u32, u32, usize); 14] = [
    (1, 0, 3),
    (1, 0, 2),
    (0x8000_0001, 0, 3),
    (0x8000_0001, 0, 2),
    (0xD, 1, 0),
    (7, 0, 1),
    (7, 0, 2),
    (0x8000_0007, 0, 3),
    (0x8000_0008, 0, 1),
    (7, 0, 3),
    (7, 1, 0),
    (0x8000_0021, 0, 0),
    (7, 1, 1),
    (7, 2, 3),
];

/// Where a call's structure has its counts and its two lists.
struct Lists {
    leaf_count: usize,
    msr_count: usize,
    leaves: usize,
    msrs: usize,
}

/// `xen_domctl_cpu_policy`.
const DOMAIN: Lists = Lists {
    leaf_count: 0,
    msr_count: 4,
    leaves: 8,
    msrs: 16,
};
/// `xen_sysctl_cpu_policy`.
const MACHINE: Lists = Lists {
    leaf_count: 4,
    msr_count: 8,
    leaves: 16,
    msrs: 24,
};

/// Whose leaves are shown.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The CPU's own.
    Host,
    /// A guest's without a policy of its own.
    Guest,
    /// A guest's with one.
    Domain(&'a Policy),
}

impl Source<'_> {
    fn values(self, view: &View, leaf: u32, subleaf: u32) -> Values {
        match self {
            Self::Host => cpuid::host(leaf, subleaf),
            Self::Guest => cpuid::values(view, leaf, subleaf),
            Self::Domain(policy) => policy.apply(leaf, subleaf, cpuid::values(view, leaf, subleaf)),
        }
    }
}

/// `XEN_DOMCTL_get_cpu_policy`.
pub fn get<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<24>::read(vcpu, body)?;
    let policy = domain.control.cpu_policy().unwrap_or_default();
    write_lists(
        vcpu,
        argument,
        &DOMAIN,
        &View::of(domain),
        Source::Domain(&policy),
        body,
    )
}

/// `XEN_SYSCTL_get_cpu_policy`: the CPU's own leaves, and what guests are shown. There are no PV guests.
pub fn of_machine<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let argument = Argument::<32>::read(vcpu, body)?;
    if argument.u32(12) != 0 {
        return Err(Errno::Inval);
    }
    let source = source(argument.u32(0), [0, 1], [3, 5], [2, 4])?;
    let view = View::of(&vcpu.domain);
    write_lists(vcpu, argument, &MACHINE, &view, source, body)
}

/// The words of features of the CPU itself.
pub fn machine_features() -> [u32; WORDS.len()] {
    WORDS.map(|(leaf, subleaf, register)| cpuid::host(leaf, subleaf)[register])
}

/// `XEN_SYSCTL_get_cpu_featureset`: the words of features of such a policy.
pub fn features<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<16>::read(vcpu, body)?;
    let source = source(argument.u32(0), [0, 1], [3, 3], [2, 2])?;
    let (most, buffer) = (argument.u32(4) as usize, argument.u64(8));
    let mut count = WORDS.len();
    if buffer != 0 {
        count = count.min(most);
        let view = View::of(&vcpu.domain);
        for (place, (leaf, subleaf, register)) in WORDS.into_iter().take(count).enumerate() {
            let word = source.values(&view, leaf, subleaf)[register];
            let at = buffer.wrapping_add(place as u64 * 4);
            write_bytes(vcpu, at, &word.to_le_bytes())?;
        }
    }
    argument.set_u32(4, count as u32);
    argument.write(vcpu, body)?;
    if buffer != 0 && most < WORDS.len() {
        return Err(Errno::NoBufs);
    }
    Ok(0)
}

/// Which policy an index means, by the indices of the host's, the guests' and PV guests'.
fn source<'a>(
    index: u32,
    host: [u32; 2],
    guest: [u32; 2],
    pv: [u32; 2],
) -> Result<Source<'a>, Errno> {
    if host.contains(&index) {
        Ok(Source::Host)
    } else if guest.contains(&index) {
        Ok(Source::Guest)
    } else if pv.contains(&index) {
        Err(Errno::OpNotSupp)
    } else {
        Err(Errno::Inval)
    }
}

/// `XEN_DOMCTL_set_cpu_policy`, before the domain runs: its leaves are checked and taken one by one, all or none.
///
/// # Errors
/// `Exist` for a domain that has run, `Inval` for a leaf or an MSR that asks for what is not there; the structure names it.
pub fn set<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    const ERROR_LEAF: u64 = 24;
    const ERROR_MSR: u64 = 32;
    let argument = Argument::<24>::read(vcpu, body)?;
    let leaf_count = argument.u32(DOMAIN.leaf_count);
    let msr_count = argument.u32(DOMAIN.msr_count);
    if leaf_count > cpu_policy::MOST_LEAVES || msr_count as usize > MSRS.len() {
        return Err(Errno::TooBig);
    }
    if domain.cpu_time() != 0 {
        return Err(Errno::Exist);
    }
    let view = View::of(domain);
    let mut policy = domain.control.cpu_policy().unwrap_or_default();
    let new = Arc::make_mut(&mut policy);
    for place in 0..u64::from(leaf_count) {
        let at = argument.u64(DOMAIN.leaves).wrapping_add(place * LEAF);
        let leaf = Argument::<{ LEAF as usize }>::read(vcpu, at)?;
        let index = Index::sub(leaf.u32(0), leaf.u32(4));
        let shown = cpuid::values(&view, index.leaf, index.ecx());
        let values = [leaf.u32(8), leaf.u32(12), leaf.u32(16), leaf.u32(20)];
        if new.set(index, values, shown).is_err() {
            let mut named = [0; 8];
            named[..4].copy_from_slice(&index.leaf.to_le_bytes());
            named[4..].copy_from_slice(&index.subleaf.to_le_bytes());
            write_bytes(vcpu, body.wrapping_add(ERROR_LEAF), &named)?;
            return Err(Errno::Inval);
        }
    }
    for place in 0..u64::from(msr_count) {
        let at = argument.u64(DOMAIN.msrs).wrapping_add(place * MSR);
        let msr = Argument::<{ MSR as usize }>::read(vcpu, at)?;
        let index = msr.u32(0);
        if let Err(error) = cpu_policy::check_msr(index, msr.u32(4), msr.u64(8)) {
            let at = body.wrapping_add(ERROR_MSR);
            write_bytes(vcpu, at, &index.to_le_bytes())?;
            return Err(error);
        }
    }
    domain.control.set_cpu_policy(policy);
    Ok(0)
}

/// Writes both lists as far as there are buffers, and how long they are.
fn write_lists<H: Vcpu, const N: usize>(
    vcpu: &Running<H>,
    mut argument: Argument<N>,
    lists: &Lists,
    view: &View,
    source: Source<'_>,
    body: u64,
) -> Outcome {
    let (leaves, most_leaves) = (argument.u64(lists.leaves), argument.u32(lists.leaf_count));
    let (msrs, most_msrs) = (argument.u64(lists.msrs), argument.u32(lists.msr_count));
    let indices = cpuid::indices(|leaf, subleaf| source.values(view, leaf, subleaf));
    if (leaves != 0 && (most_leaves as usize) < indices.len())
        || (msrs != 0 && (most_msrs as usize) < MSRS.len())
    {
        return Err(Errno::NoBufs);
    }
    let leaf_count = if leaves == 0 {
        cpu_policy::MOST_LEAVES
    } else {
        for (place, index) in indices.iter().enumerate() {
            let [a, b, c, d] = source.values(view, index.leaf, index.ecx());
            let mut entry = [0; LEAF as usize];
            let words = [index.leaf, index.subleaf, a, b, c, d];
            for (word, bytes) in words.into_iter().zip(entry.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            write_bytes(vcpu, leaves.wrapping_add(place as u64 * LEAF), &entry)?;
        }
        indices.len() as u32
    };
    if msrs != 0 {
        for (place, index) in MSRS.into_iter().enumerate() {
            let mut entry = [0; MSR as usize];
            entry[..4].copy_from_slice(&index.to_le_bytes());
            write_bytes(vcpu, msrs.wrapping_add(place as u64 * MSR), &entry)?;
        }
    }
    argument.set_u32(lists.leaf_count, leaf_count);
    argument.set_u32(lists.msr_count, MSRS.len() as u32);
    argument.write(vcpu, body).map(|()| 0)
}
