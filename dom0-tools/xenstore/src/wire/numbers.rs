//! Types of messages and names of errors.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// Message types (`xsd_sockmsg_type`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// The type with this number, if this version of the protocol has one.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($value => Some(Self::$name),)* _ => None }
            }

            /// Its number in a header.
            pub fn number(self) -> u32 {
                match self { $(Self::$name => $value,)* }
            }
        }
    };
}

kinds! {
    /// Commands to the daemon itself.
    Control = 0,
    /// Names of a node's children.
    Directory = 1,
    /// Value of a node.
    Read = 2,
    /// Permissions of a node.
    GetPermissions = 3,
    /// Register a watch.
    Watch = 4,
    /// Remove a watch.
    Unwatch = 5,
    /// Begin a transaction.
    TransactionStart = 6,
    /// Commit or abort a transaction.
    TransactionEnd = 7,
    /// Tell the daemon of a new domain and its ring.
    Introduce = 8,
    /// Make the daemon forget a domain.
    Release = 9,
    /// The path below which a domain's relative paths are.
    GetDomainPath = 10,
    /// Set a node's value, creating it and its parents.
    Write = 11,
    /// Create an empty node.
    MakeDirectory = 12,
    /// Remove a node and what is below it.
    Remove = 13,
    /// Set a node's permissions.
    SetPermissions = 14,
    /// From the daemon only: a watch fired.
    WatchEvent = 15,
    /// From the daemon only: a request failed.
    Error = 16,
    /// Whether the daemon knows a domain.
    IsDomainIntroduced = 17,
    /// A domain runs again after it had shut down for a suspension.
    Resume = 18,
    /// Give a domain the rights of another one (device models).
    SetTarget = 19,
    /// Remove all of the caller's watches and transactions.
    ResetWatches = 21,
    /// Names of children, a part at a time.
    DirectoryPart = 22,
}

macro_rules! errors {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// Why the store refused a request. It travels by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Errno { $(#[doc = $doc] $name,)* }

        impl Errno {
            /// The name that is sent in an ERROR message.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The error with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }

            /// The same in words.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

errors! {
    Invalid = "EINVAL", "invalid argument";
    Access = "EACCES", "permission denied";
    Exists = "EEXIST", "exists already";
    IsDirectory = "EISDIR", "is a directory";
    NotFound = "ENOENT", "no such node";
    NoMemory = "ENOMEM", "out of memory";
    NoSpace = "ENOSPC", "the domain's quota is used up";
    Io = "EIO", "input or output failed";
    NotEmpty = "ENOTEMPTY", "not empty";
    Unsupported = "ENOSYS", "unknown request";
    ReadOnly = "EROFS", "read only";
    Busy = "EBUSY", "busy";
    Again = "EAGAIN", "another change came in between";
    Connected = "EISCONN", "connected already";
    TooBig = "E2BIG", "too big";
    NotPermitted = "EPERM", "operation not permitted";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.meaning(), self.name())
    }
}
