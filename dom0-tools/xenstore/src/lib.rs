//! Xenstore, the small hierarchical database through which domains and the toolstack find each other.
//!
//! * [`wire`]: message headers, request types, errors and limits of the protocol;
//! * [`path`] and [`permission`]: names of nodes and who may read or write them;
//! * [`store`]: the daemon's logic: nodes, transactions, watches, quotas. No I/O, so that tests need no sockets;
//! * [`ring`]: the byte rings in the page that a domain shares with the daemon;
//! * [`outbox`]: what waits to be sent to one connection;
//! * [`client`]: a blocking client for the other tools.
//!
//! Protocol facts are those of the public header `xs_wire.h` and of Xen's `docs/misc/xenstore.txt`; the project's own
//! summary is `xen-abi-7-xenstore-io.md`.
#![forbid(unsafe_code)]

pub mod client;
pub mod outbox;
pub mod path;
pub mod permission;
pub mod ring;
pub mod store;
mod sync;
pub mod wire;
