//! How large a domain's tables may become.

use oxen_abi::Errno;
use oxen_abi::grant::{
    DEFAULT_MAX_FRAMES, DEFAULT_MAX_MAPTRACK_FRAMES, HANDLES_PER_FRAME, MAX_VERSION,
};

/// Limits of one domain, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames of its grant table.
    pub frames: u32,
    /// Grants that it may have mapped at a time.
    pub handles: u32,
    /// Newest version of entries that it may choose.
    pub version: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: DEFAULT_MAX_FRAMES,
            handles: DEFAULT_MAX_MAPTRACK_FRAMES * HANDLES_PER_FRAME,
            version: MAX_VERSION,
        }
    }
}

impl Limits {
    /// As `createdomain` asks for them: `max_grant_frames` and `max_maptrack_frames`, negative for the defaults, and
    /// `grant_opts`, whose bits 3:0 are the newest version, 0 for the default (`public/domctl.h`).
    ///
    /// # Errors
    /// `Inval` above the defaults, which are the most there is, and for options that do not exist.
    pub fn asked(frames: i32, maptrack_frames: i32, options: u32) -> Result<Self, Errno> {
        let within = |asked: i32, most: u32| match u32::try_from(asked) {
            Err(_) => Ok(most),
            Ok(asked) if asked <= most => Ok(asked),
            Ok(_) => Err(Errno::Inval),
        };
        Ok(Self {
            frames: within(frames, DEFAULT_MAX_FRAMES)?,
            handles: within(maptrack_frames, DEFAULT_MAX_MAPTRACK_FRAMES)? * HANDLES_PER_FRAME,
            version: match options {
                0 => MAX_VERSION,
                1..=MAX_VERSION => options,
                _ => return Err(Errno::Inval),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_default_and_more_is_refused() {
        assert_eq!(Limits::asked(-1, -1, 0), Ok(Limits::default()));
        assert_eq!(
            Limits::asked(0, 2, 1),
            Ok(Limits {
                frames: 0,
                handles: 512,
                version: 1
            })
        );
        for (frames, maptrack, options) in [(65, 1, 1), (1, 1025, 1), (1, 1, 3), (1, 1, 0x10)] {
            assert_eq!(
                Limits::asked(frames, maptrack, options),
                Err(Errno::Inval),
                "{frames} {maptrack} {options}"
            );
        }
    }
}
