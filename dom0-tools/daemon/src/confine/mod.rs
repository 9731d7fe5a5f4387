//! What a daemon of dom0 gives up when it has opened what it needs: capabilities, files that are not its own, other programs,
//! system calls that only a break-in would make, and the way back.
//!
//! Each part is for the case that a guest finds a fault in the daemon's code. None is needed for the daemon to work, so one that the
//! kernel does not have is left out with a warning.
mod calls;
mod seal;

use std::error::Error;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
pub use rustix::thread::CapabilitySet;
pub use seal::seal;

use rustix::thread::{
    CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The newest rules for files that are asked for; an older kernel knows fewer.
const RULES: ABI = ABI::V5;

/// What a daemon keeps.
#[derive(Clone, Debug)]
pub struct Needs<'a> {
    /// Files, or directories with all below them, that it may read.
    pub reads: &'a [&'a Path],
    /// The same, to read, write, make and remove.
    pub writes: &'a [&'a Path],
    /// Files and devices, or directories with all of them below, that it may read and write where they are.
    pub uses: &'a [&'a Path],
    /// Programs that it starts; they are confined as it is.
    pub programs: &'a [&'a Path],
    /// What it may do as root alone may.
    pub capabilities: CapabilitySet,
    /// System calls (`SYS_*`) that it makes, of those that no other daemon does.
    pub calls: &'a [i64],
    /// Families of sockets (`AF_*`) beside the local ones.
    pub families: &'a [i32],
}

impl Default for Needs<'_> {
    /// Nothing.
    fn default() -> Self {
        Self {
            reads: &[],
            writes: &[],
            uses: &[],
            programs: &[],
            capabilities: CapabilitySet::empty(),
            calls: &[],
            families: &[],
        }
    }
}

impl Needs<'_> {
    fn calls(&self) -> Vec<i64> {
        let start = (!self.programs.is_empty()).then_some(libc::SYS_execve);
        self.calls.iter().copied().chain(start).collect()
    }
}

/// Gives up everything but `needs`, for the calling thread and those that it starts from now on: call it before there are others. What
/// is open stays open.
pub fn confine(needs: &Needs<'_>) {
    type Step<'a> = (&'a str, &'a dyn Fn() -> Result<(), Box<dyn Error>>);
    // Filters may be set by who can gain no privileges, or by who has them: so the first step is the first.
    let steps: [Step<'_>; 4] = [
        ("new privileges", &|| Ok(set_no_new_privs(true)?)),
        ("files", &|| files(needs)),
        ("capabilities", &|| capabilities(needs.capabilities)),
        ("system calls", &|| {
            calls::forbid(&needs.calls(), needs.families)
        }),
    ];
    for (what, step) in steps {
        if let Err(error) = step() {
            log::warn!("{what} cannot be given up: {error}");
        }
    }
}

/// Files by Landlock.
fn files(needs: &Needs<'_>) -> Result<(), Box<dyn Error>> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let in_place =
        AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let all = AccessFs::from_all(RULES);
    let done = Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(needs.reads, read))?
        .add_rules(path_beneath_rules(needs.writes, all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(needs.uses, in_place))?
        .add_rules(path_beneath_rules(
            needs.programs,
            AccessFs::ReadFile | AccessFs::Execute,
        ))?
        .restrict_self()?;
    if done.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel has no Landlock".into());
    }
    Ok(())
}

fn capabilities(keep: CapabilitySet) -> Result<(), Box<dyn Error>> {
    for capability in CapabilitySet::all().difference(keep).iter() {
        // The kernel may know fewer.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}
