//! CONTROL: commands to the daemon itself.

use super::{Answer, Store};
use crate::wire::{Errno, strings};

const HELP: &str = "check: look for faults in the store\nhelp: this list\nprint <text>: write a line to the daemon's log\n\
quota: limits for unprivileged domains\nstats: how much there is of everything\n";

impl Store {
    pub(super) fn control(&self, payload: &[u8]) -> Answer {
        let strings = strings(payload).ok_or(Errno::Invalid)?;
        let text = match strings.as_slice() {
            [b"help"] => HELP.to_owned(),
            [b"check"] => self
                .check()
                .map_or_else(|| "OK".to_owned(), |fault| format!("fault: {fault}")),
            [b"print", words @ ..] if !words.is_empty() => {
                let words: Vec<_> = words
                    .iter()
                    .map(|word| String::from_utf8_lossy(word))
                    .collect();
                log::info!("control: {}", words.join(" ").escape_debug());
                "OK".to_owned()
            }
            [b"quota"] => format!("{:?}", self.quotas),
            [b"stats"] => self.stats(),
            _ => return Err(Errno::Invalid),
        };
        Ok(format!("{text}\0").into_bytes())
    }

    /// What is wrong with the store, if anything is.
    pub fn check(&self) -> Option<String> {
        let stray = self
            .watches
            .iter()
            .find(|(_, watch)| !self.connections.contains_key(&watch.connection));
        let stray = stray.map(|(path, watch)| {
            format!(
                "a watch of {path} belongs to {}, which is not connected",
                watch.connection
            )
        });
        self.tree.check().or(stray)
    }

    fn stats(&self) -> String {
        let mut nodes = 0;
        self.tree.for_each(|_, _| nodes += 1);
        let transactions: usize = self
            .connections
            .values()
            .map(|connection| connection.transactions.len())
            .sum();
        format!(
            "nodes {nodes}\nwatches {}\nconnections {}\ndomains {}\ntransactions {transactions}\n",
            self.watches.iter().count(),
            self.connections.len(),
            self.domains.len(),
        )
    }
}
