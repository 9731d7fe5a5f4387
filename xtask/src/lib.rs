//! What `cargo xtask` does, as a library: the integration tests use the same machines and images.
#![forbid(unsafe_code)]

use std::error::Error;

pub mod bench;
pub mod build;
pub mod clean;
pub mod cli;
pub mod doctor;
pub mod host;
pub mod iso;
pub mod lint;
pub mod machine;
pub mod progress;
pub mod provision;
pub mod run;
pub mod test;

/// An error with what led to it: what failed at last tells least about why.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    std::iter::once(error)
        .chain(causes)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told() {
        let error = anyhow::anyhow!("no network")
            .context("no lists")
            .context("no kernel");
        let error: Box<dyn Error + Send + Sync> = error.into();
        assert_eq!(with_causes(&*error), "no kernel: no lists: no network");
    }
}
