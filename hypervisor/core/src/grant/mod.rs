//! Grant tables (`public/grant_table.h`): what a domain lets others do with its pages, and what it does with theirs.
//!
//! A [`GrantTable`] is the granting side: entries that the domain writes, in frames that it shares with the hypervisor, and
//! for each entry in use what it was used for. A [`Maptrack`] is the using side: the grants that a domain has mapped. Whose
//! frame is where, and that a frame stays while it is in use, is the caller's to know.

mod copy;
mod entry;
mod limits;
mod maptrack;
mod pins;
mod table;
mod version;

#[cfg(all(test, feature = "loom"))]
mod all_orders;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use copy::{End, Range, copy};
pub use limits::Limits;
pub use maptrack::{Mapping, Maptrack};
pub use pins::Access;
pub use table::{Ask, Content, Frame, GrantTable, LetGo, Purpose};
