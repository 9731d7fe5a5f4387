//! Limits.

/// What an unprivileged domain may use up; dom0 has no limits. The figures of `Default` are those of Xen's daemon.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Nodes it owns.
    pub nodes: usize,
    /// Watches it has registered.
    pub watches: usize,
    /// Bytes of one node's value.
    pub value: usize,
    /// Transactions it has open.
    pub transactions: usize,
    /// Nodes that one transaction looks at or changes.
    pub transaction_size: usize,
    /// Entries of one node's permissions.
    pub permissions: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            nodes: 1000,
            watches: 128,
            value: 2048,
            transactions: 10,
            transaction_size: 1024,
            permissions: 5,
        }
    }
}
