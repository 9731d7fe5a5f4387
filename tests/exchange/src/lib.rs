//! The data test of PV devices, the same for each pair of a front end and a back end: what goes over a disk or a network card, and
//! what has to come out of it. A small guest runs it with our own front ends, a Linux program with Linux's, and in dom0 the same program
//! does the other side's part. Who runs it brings the device; this crate touches none.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod disk;
pub mod network;
mod stream;

pub use stream::Stream;
