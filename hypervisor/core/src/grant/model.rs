//! A plain model of a granting domain's entries and of who uses them; the table must agree with it after every step.

use core::sync::atomic::Ordering::Relaxed;
use std::cell::RefCell;
use std::collections::BTreeMap;

use oxen_abi::grant::{Status, entry as layout};
use proptest::prelude::*;

use super::*;
use crate::address::{Gfn, Mfn};
use crate::guest_page::GuestPage;
use crate::guest_page::testing::leaked_page;
use crate::id::{DomainId, GrantRef};

/// Entries that the steps are about: reserved ones and others.
const GRANTS: u32 = 12;
/// Pages from here on are no memory.
const MEMORY: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// The guest sets an entry: kind, read-only or a part, for whom, page.
    Grant(u32, u16, u16, u16, u64),
    /// It takes an entry back if it may.
    Revoke(u32),
    /// Somebody uses an entry.
    Pin(u32, u16, bool, bool, Purpose),
    /// The n-th use ends.
    Unpin(usize),
    SetVersion(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let purpose = prop_oneof![
        3 => Just(Purpose::Map),
        2 => Just(Purpose::Copy),
        1 => Just(Purpose::CopyVia)
    ];
    let grant = 0..GRANTS;
    let extra = prop_oneof![
        4 => Just(0),
        1 => Just(layout::READ_ONLY),
        1 => Just(layout::SUB_PAGE)
    ];
    let kind = prop_oneof![5 => Just(1u16), 1 => 0u16..4];
    prop_oneof![
        3 => (grant.clone(), kind, extra, 1u16..3, 0..MEMORY + 1)
            .prop_map(|(grant, kind, extra, who, gfn)| Step::Grant(grant, kind, extra, who, gfn)),
        1 => grant.clone().prop_map(Step::Revoke),
        6 => (grant, 1u16..3, any::<bool>(), prop::bool::weighted(0.1), purpose)
            .prop_map(|(grant, who, write, device, purpose)| Step::Pin(grant, who, write, device, purpose)),
        4 => any::<usize>().prop_map(Step::Unpin),
        1 => (1u32..3).prop_map(Step::SetVersion),
    ]
}

/// An entry as the guest has set it.
#[derive(Clone, Copy, Default)]
struct Granted {
    flags: u16,
    who: u16,
    gfn: u64,
}

/// A use of an entry.
#[derive(Clone, Copy)]
struct Use {
    grant: u32,
    access: Access,
    who: u16,
    /// What the entry was when the first of its uses began.
    entry: Granted,
    /// Whether it gave a part of a page then: a change of version does not make a part whole.
    part: bool,
}

#[derive(Default)]
struct Model {
    granted: BTreeMap<u32, Granted>,
    uses: Vec<Use>,
    version: u32,
}

impl Model {
    fn uses_of(&self, grant: u32) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |one| one.grant == grant)
    }

    fn writes(&self, grant: u32) -> bool {
        self.uses_of(grant).any(|one| one.access.write)
    }

    fn pin(&mut self, grant: u32, ask: &Ask) -> Result<(), Status> {
        let now = self.granted.get(&grant).copied().unwrap_or_default();
        let first = self.uses_of(grant).next().copied();
        let general = Err(Status::GeneralError);
        let entry = first.map_or(now, |one| one.entry);
        let in_version_2 = self.version == 2;
        let part = first.map_or(in_version_2 && entry.flags & layout::SUB_PAGE != 0, |one| {
            one.part
        });
        let via = entry.flags & layout::TYPE == layout::TRANSITIVE;
        let usable = match ask.purpose {
            // Version 1 knows no parts, but does not map what claims to be one.
            Purpose::Map => {
                let claims = entry.flags & layout::SUB_PAGE != 0 && first.is_none();
                !part && !via && !claims
            }
            Purpose::Copy => !via || in_version_2,
            Purpose::CopyVia => !via,
        };
        match first {
            Some(one) => {
                let full = self
                    .uses_of(grant)
                    .filter(|one| one.access == ask.access)
                    .count()
                    >= 128;
                if one.who != ask.who.0 || full || !usable {
                    return general;
                }
            }
            None => {
                let kind = entry.flags & layout::TYPE;
                let valid = kind == layout::PERMIT_ACCESS || kind == layout::TRANSITIVE;
                if !valid || entry.who != ask.who.0 || !usable {
                    // A page that is none is found before a grant that goes nowhere.
                    return general;
                }
            }
        }
        let read_only = now.flags & layout::READ_ONLY != 0;
        if ask.access.write && !self.writes(grant) && read_only {
            return general;
        }
        if first.is_none() && !via && entry.gfn >= MEMORY {
            return Err(Status::BadPage);
        }
        self.uses.push(Use {
            grant,
            access: ask.access,
            who: ask.who.0,
            entry,
            part,
        });
        Ok(())
    }
}

fn write(table: &GrantTable<GuestPage>, grant: u32, entry: Granted, marks: u16) {
    let place = table.entry(GrantRef(grant)).expect("the entry is there");
    let marks = if place.status.is_some() { 0 } else { marks };
    let frame_at = if place.status.is_some() {
        place.page.u32(place.at + 4).store(8 << 16, Relaxed);
        place.page.u32(place.at + 12).store(0, Relaxed);
        layout::V2_FRAME
    } else {
        layout::V1_FRAME
    };
    let frame = place.page.u32(place.at + frame_at);
    frame.store(entry.gfn as u32, Relaxed);
    let header = u32::from(entry.flags | marks) | u32::from(entry.who) << 16;
    place.page.u32(place.at).store(header, Relaxed);
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut table = GrantTable::new(Limits::default());
    table
        .grow(1, || Some(leaked_page()))
        .expect("tests have memory");
    let mut model = Model {
        version: 1,
        ..Model::default()
    };
    let held = RefCell::new(0u32);
    for step in steps {
        match step {
            Step::Grant(grant, kind, extra, who, gfn) => {
                if model.uses_of(grant).next().is_none() {
                    let flags = kind | extra;
                    let entry = Granted { flags, who, gfn };
                    model.granted.insert(grant, entry);
                    write(&table, grant, entry, 0);
                }
            }
            Step::Revoke(grant) => {
                // A guest must not while the entry is in use; one that does harms only itself, in version 2.
                if model.uses_of(grant).next().is_none() {
                    model.granted.remove(&grant);
                    write(&table, grant, Granted::default(), 0);
                }
            }
            Step::Pin(grant, who, write, device, purpose) => {
                let ask = Ask {
                    who: DomainId(who),
                    access: Access { write, device },
                    purpose,
                };
                let got = table.pin(GrantRef(grant), &ask, |gfn| {
                    if gfn.0 >= MEMORY {
                        return Err(Status::BadPage);
                    }
                    *held.borrow_mut() += 1;
                    Ok(Mfn(gfn.0 + 100))
                });
                let expected = model.pin(grant, &ask);
                prop_assert_eq!(got.map(|_| ()), expected);
                if let (Ok(Content::Page { gfn, frame, .. }), Some(one)) = (got, model.uses.last())
                {
                    prop_assert_eq!((gfn, frame), (Gfn(one.entry.gfn), Mfn(one.entry.gfn + 100)));
                }
            }
            Step::Unpin(which) => {
                if !model.uses.is_empty() {
                    let Use {
                        grant,
                        access,
                        entry,
                        ..
                    } = model.uses.remove(which % model.uses.len());
                    let gone = table.unpin(GrantRef(grant), access);
                    let last = model.uses_of(grant).next().is_none();
                    let is_page = entry.flags & layout::TYPE == layout::PERMIT_ACCESS;
                    prop_assert_eq!(
                        gone.map(|gone| gone.gfn),
                        (last && is_page).then_some(Gfn(entry.gfn))
                    );
                    *held.borrow_mut() -= u32::from(gone.is_some());
                }
            }
            Step::SetVersion(version) => {
                if version != model.version
                    && table.set_version(version, || Some(leaked_page())).is_ok()
                {
                    model.version = version;
                    model.granted.retain(|&grant, entry| {
                        grant < 8 && entry.flags & layout::TYPE == layout::PERMIT_ACCESS
                    });
                    // What a part was is not carried over; the guest sets its entries anew.
                    for grant in 0..8 {
                        if model.uses_of(grant).next().is_none() {
                            model.granted.remove(&grant);
                            write(&table, grant, Granted::default(), 0);
                        }
                    }
                }
            }
        }
        let pages = (0..GRANTS)
            .filter(|&grant| {
                model
                    .uses_of(grant)
                    .next()
                    .is_some_and(|one| one.entry.flags & layout::TYPE == layout::PERMIT_ACCESS)
            })
            .count() as u32;
        prop_assert_eq!(*held.borrow(), pages);
        prop_assert_eq!(table.in_use().1, model.uses.len() as u32);
        for grant in 0..GRANTS {
            let entry = table.entry(GrantRef(grant)).expect("the entry is there");
            let marks = match entry.status {
                None => entry.header().flags,
                Some((page, at)) => page.u16(at).load(Relaxed),
            };
            let mut expected = 0;
            if model.uses_of(grant).next().is_some() {
                expected |= layout::READING;
            }
            if model.writes(grant) {
                expected |= layout::WRITING;
            }
            prop_assert_eq!(marks & (layout::READING | layout::WRITING), expected);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_model(steps in prop::collection::vec(step(), 1..80)) {
        run(steps)?;
    }
}

#[test]
fn a_part_stays_a_part_when_the_version_changes() {
    run(vec![
        Step::SetVersion(2),
        Step::Grant(0, layout::PERMIT_ACCESS, layout::SUB_PAGE, 1, 0),
        Step::Pin(0, 1, false, false, Purpose::Copy),
        Step::SetVersion(1),
        Step::Pin(0, 1, false, false, Purpose::Map),
    ])
    .expect("the table and the model agree");
}
