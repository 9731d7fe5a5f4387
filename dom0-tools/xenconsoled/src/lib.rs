//! The console daemon: one poll loop over the rings, ptys and logs of all guests.
//!
//! Nothing here waits for a guest or for who reads its console: rings are drained whether or not somebody listens, what a pty
//! does not take is kept up to a bound, and a guest that writes too fast is not listened to for a while.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod budget;
pub mod console;
pub mod daemon;
pub mod guest_log;
pub mod pty;
pub mod ring;
pub mod store;
