//! `oxblk`: PV disks for guests, out of files and block devices of dom0.
//!
//! The program runs in two roles. The manager ([`driver`], over `oxen-backend`) watches xenstore, says what a disk offers and
//! starts a worker for each disk that a guest has connected. A worker ([`worker`]) has one disk, one guest and no rights beyond them:
//!
//! * [`ring`]: the guest's rings, in the layout that it uses;
//! * [`guest`]: its pages and event channels: all data is copied, by grant copies in batches over requests;
//! * [`kept`]: those of its pages that stay mapped;
//! * [`job`]: one request on its way;
//! * [`queue`]: the requests of one ring, in order;
//! * [`engine`]: the loop around io_uring;
//! * [`image`]: what is behind a disk;
//! * [`formatted`]: images that do not hold their sectors one after the other.
//!
//! Data is copied, and what the guest has granted is never given to a device: without an IOMMU a device must not be given pages that
//! dom0 has mapped from a guest, as their addresses are not the machine's. So grants that the guest keeps (`feature-persistent`) save no
//! copy, and cost Linux's front end one more; they are offered nevertheless, for the hypervisor's copy of a page, with all that is checked
//! on the way to it, costs several of a process's own.
//!
//! Responses go out in the order of the requests. What has no response when a worker dies is thus a run of whole requests, which its
//! successor does again: reads, writes and discards have the same outcome when they are done twice, and no later request has been
//! answered that could have relied on them. Responses that were on their way into the ring are in its journal ([`oxen_backend::journal`]).
//! Nothing else has to be remembered.

pub mod buffer;
pub mod driver;
pub mod engine;
pub mod formatted;
pub mod guest;
pub mod image;
pub mod job;
pub mod kept;
pub mod queue;
pub mod ring;
pub mod worker;
