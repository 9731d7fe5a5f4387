//! Error numbers (`public/errno.h`); a hypercall returns them negated.

/// Why a hypercall failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Errno {
    Perm = 1,
    NoEnt = 2,
    Srch = 3,
    NxIo = 6,
    TooBig = 7,
    Again = 11,
    NoMem = 12,
    Access = 13,
    Fault = 14,
    Busy = 16,
    Exist = 17,
    XDev = 18,
    NoDev = 19,
    Inval = 22,
    NoSpc = 28,
    Range = 34,
    NoSys = 38,
    NoData = 61,
    /// Not for guests: the call is to be made again, with what it has left in the registers.
    Restart = 85,
    OpNotSupp = 95,
    NoBufs = 105,
}

impl Errno {
    /// The value that goes into the result register.
    pub const fn encode(self) -> u64 {
        (-(self as i64)) as u64
    }
}
