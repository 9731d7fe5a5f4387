//! Transactions that are tried again until they get through.

use std::time::Duration;

use super::{Client, Error, Requests, Result, text};
use crate::wire::{Errno, Kind};

/// Attempts before a transaction is given up.
const ATTEMPTS: u32 = 1000;
/// Attempts that follow each other at once; later ones wait a little.
const EAGER_ATTEMPTS: u32 = 5;

/// An open transaction; see [`Client::transaction`].
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a mut Client,
    id: u32,
}

impl Requests for Transaction<'_> {
    fn ask(&mut self, kind: Kind, name: &'static str, payload: Vec<u8>) -> Result<Vec<u8>> {
        self.client.exchange(kind, self.id, name, payload)
    }
}

impl Client {
    /// Runs `body` in a transaction and commits, or aborts if `body` fails. If others changed what it saw, all of it is
    /// done again: `body` must have no effects outside of the store.
    pub fn transaction<T, E: From<Error>>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut attempt = 1;
        loop {
            let answer =
                self.exchange(Kind::TransactionStart, 0, "begin a transaction", vec![0])?;
            let number = text(answer.strip_suffix(b"\0").unwrap_or(&answer));
            let id = number
                .parse()
                .map_err(|_| Error::Protocol(format!("a transaction called `{number}`")))?;
            let outcome = body(&mut Transaction { client: self, id });
            let word = if outcome.is_ok() { b"T\0" } else { b"F\0" };
            let end = self.exchange(Kind::TransactionEnd, id, "end a transaction", word.to_vec());
            match (outcome, end) {
                // The reason matters more than whether the abort went well.
                (Err(error), _) => return Err(error),
                (Ok(value), Ok(_)) => return Ok(value),
                (Ok(_), Err(error))
                    if error.errno() == Some(Errno::Again) && attempt < ATTEMPTS => {}
                (Ok(_), Err(error)) => return Err(error.into()),
            }
            if attempt > EAGER_ATTEMPTS {
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20))));
            }
            attempt += 1;
        }
    }
}
