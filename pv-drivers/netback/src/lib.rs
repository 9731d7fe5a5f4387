//! Network cards of guests (`vif`): each is a TAP interface of dom0 that joins a bridge, served by a process of its own.
//!
//! * [`driver`]: what is offered to a guest and agreed with it, over xenstore;
//! * [`job`]: what a worker process is told;
//! * [`worker`]: the worker: opens what it needs, gives up all rights, serves the queues with a thread each;
//! * [`queue`]: a pair of rings and a queue of the TAP interface; [`transmit`] and [`receive`] are its two directions;
//! * [`manners`]: what a queue leaves undone for a moment; [`arena`]: memory for packets under way;
//! * [`tap`], [`vnet`]: the interface, and the header that goes before each packet there;
//! * [`machine`]: grants and interface as the two directions see them, so that they run in tests without either;
//! * [`credit`]: a limit on what a guest sends; [`drops`]: what goes no further;
//! * [`hotplug`]: bridges for the network cards that Linux's own back end serves.
//!
//! Packets are copied between granted pages and memory of the worker, many with one call; no page of a guest is mapped but its rings. Answers
//! go out in the order of the requests, when the work is done: whoever takes a ring up after a worker died gives the answers that were on
//! their way (they are in its journal, [`oxen_backend::journal`]) and does again what has none. A packet from the guest may then be sent
//! twice and one to it may be lost, which networks do too; its pages for packets come again.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "advice to the kernel")]
pub mod arena;
pub mod credit;
pub mod driver;
pub mod drops;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
pub mod hotplug;
pub mod job;
pub mod machine;
pub mod manners;
pub mod queue;
pub mod receive;
#[expect(unsafe_code, reason = "ioctls of interfaces")]
pub mod tap;
pub mod transmit;
pub mod vnet;
pub mod worker;

#[cfg(test)]
mod tests;
