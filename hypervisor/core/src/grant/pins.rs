//! How often an entry is in use, and what for.

/// One use of a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Writing too, not only reading.
    pub write: bool,
    /// By devices, not by CPUs.
    pub device: bool,
}

impl Access {
    /// By CPUs.
    pub const fn host(write: bool) -> Self {
        Self {
            write,
            device: false,
        }
    }

    const fn index(self) -> usize {
        self.write as usize | (self.device as usize) << 1
    }
}

/// Uses by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins([u8; 4]);

impl Pins {
    /// No use.
    pub const NONE: Self = Self([0; 4]);
    /// Uses of one kind at most: Xen refuses the 129th.
    pub const MOST: u8 = 128;

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether any writes.
    pub fn any_writes(self) -> bool {
        [false, true].into_iter().any(|device| {
            let access = Access {
                write: true,
                device,
            };
            self.0[access.index()] != 0
        })
    }

    /// All of them.
    pub fn count(self) -> u32 {
        self.0.into_iter().map(u32::from).sum()
    }

    /// Whether there can be no more of this kind.
    pub fn is_full(self, access: Access) -> bool {
        self.0[access.index()] >= Self::MOST
    }

    /// Notes one more; the caller has looked that there can be.
    pub fn add(&mut self, access: Access) {
        self.0[access.index()] += 1;
    }

    /// Notes one less; false if there was none.
    #[must_use]
    pub fn remove(&mut self, access: Access) -> bool {
        let count = &mut self.0[access.index()];
        let Some(less) = count.checked_sub(1) else {
            return false;
        };
        *count = less;
        true
    }
}
