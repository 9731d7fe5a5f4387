//! The real store.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use oxen_xenstore::client::{Client, Error, Requests};

use super::{Change, Keys, Store};

const DOMAINS: &str = "/local/domain";
const DOMAINS_TOKEN: &str = "domains";
const CONSOLE_TOKEN: &str = "console:";

/// A connection over xenstored's socket.
#[derive(Debug)]
pub struct XenStore {
    client: Client,
}

impl XenStore {
    /// Connects and watches for domains that come and go.
    ///
    /// # Errors
    /// Nobody listens there; the message names the socket.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut client = Client::connect(socket).map_err(io::Error::other)?;
        for path in ["@introduceDomain", "@releaseDomain"] {
            client
                .watch(path, DOMAINS_TOKEN)
                .map_err(io::Error::other)?;
        }
        Ok(Self { client })
    }
}

impl Store for XenStore {
    fn domains(&mut self) -> io::Result<Vec<u16>> {
        let names = answered(self.client.directory(DOMAINS))?.unwrap_or_default();
        let mut domains = Vec::new();
        for domid in names.iter().filter_map(|name| name.parse().ok()) {
            if domid != 0 && answered(self.client.is_introduced(domid))? == Some(true) {
                domains.push(domid);
            }
        }
        Ok(domains)
    }

    fn console(&mut self, domid: u16) -> io::Result<Option<Keys>> {
        let mut read = |key: &str| -> io::Result<Option<String>> {
            let text = answered(self.client.read_text(&format!("{DOMAINS}/{domid}/{key}")))?;
            Ok(text.flatten())
        };
        let gfn = read("console/ring-ref")?;
        let port = read("console/port")?;
        let name = read("name")?.unwrap_or_default();
        let (gfn, port) = (
            gfn.and_then(|n| n.parse().ok()),
            port.and_then(|n| n.parse().ok()),
        );
        Ok((gfn.zip(port)).map(|(gfn, port)| Keys { name, gfn, port }))
    }

    fn watch(&mut self, domid: u16) -> io::Result<()> {
        let path = format!("{DOMAINS}/{domid}/console");
        answered(self.client.watch(&path, &token(domid))).map(|_| ())
    }

    fn unwatch(&mut self, domid: u16) -> io::Result<()> {
        let path = format!("{DOMAINS}/{domid}/console");
        answered(self.client.unwatch(&path, &token(domid))).map(|_| ())
    }

    /// Only if the console is still described: a domain may have gone meanwhile, and its nodes must not come back.
    fn publish(&mut self, domid: u16, tty: &str) -> io::Result<()> {
        let console = format!("{DOMAINS}/{domid}/console");
        let result = self.client.transaction(|transaction| -> Result<(), Error> {
            if transaction
                .read_text(&format!("{console}/ring-ref"))?
                .is_some()
            {
                transaction.write(&format!("{console}/tty"), tty)?;
            }
            Ok(())
        });
        answered(result).map(|_| ())
    }

    fn change(&mut self) -> io::Result<Option<Change>> {
        loop {
            let event = self.client.wait_event(Some(Duration::ZERO));
            match event.map_err(io::Error::other)? {
                None => return Ok(None),
                Some(event) => {
                    if let Some(change) = change(&event.token) {
                        return Ok(Some(change));
                    }
                }
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

fn token(domid: u16) -> String {
    format!("{CONSOLE_TOKEN}{domid}")
}

fn change(token: &str) -> Option<Change> {
    if token == DOMAINS_TOKEN {
        return Some(Change::Domains);
    }
    let domid = token.strip_prefix(CONSOLE_TOKEN)?.parse().ok()?;
    Some(Change::Console(domid))
}

/// A refusal is an answer: what was asked about may have gone meanwhile. Anything else means that the connection is lost.
fn answered<T>(result: Result<T, Error>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno().is_some() => {
            log::debug!("{error}");
            Ok(None)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back_to_their_domain() {
        assert_eq!(change(&token(77)), Some(Change::Console(77)));
        assert_eq!(change(DOMAINS_TOKEN), Some(Change::Domains));
        assert_eq!(change("console:x"), None);
    }

    fn next(store: &mut XenStore) -> Option<Change> {
        for _ in 0..100 {
            if let Some(change) = store.change().expect("a connection") {
                return Some(change);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// `OXEN_TEST_XENSTORED`: the socket of a `xenstored --no-domains` that is there for this test only.
    #[test]
    fn a_console_is_found_and_published_once_it_is_described() {
        let Ok(socket) = std::env::var("OXEN_TEST_XENSTORED") else {
            println!("skipped: OXEN_TEST_XENSTORED names no socket");
            return;
        };
        let socket = Path::new(&socket);
        let mut tool = Client::connect(socket).expect("a daemon");
        let mut store = XenStore::connect(socket).expect("a daemon");
        assert_eq!(next(&mut store), Some(Change::Domains));
        assert_eq!(next(&mut store), Some(Change::Domains));
        assert_eq!(store.console(7).expect("a connection"), None);
        store.publish(7, "/dev/pts/1").expect("a connection");
        assert_eq!(
            tool.read_text("/local/domain/7/console/tty")
                .expect("an answer"),
            None
        );
        store.watch(7).expect("a connection");
        for (key, value) in [
            ("name", "demo"),
            ("console/ring-ref", "1044479"),
            ("console/port", "2"),
        ] {
            tool.write(&format!("/local/domain/7/{key}"), value)
                .expect("a write");
        }
        let keys = Keys {
            name: "demo".to_owned(),
            gfn: 1_044_479,
            port: 2,
        };
        assert_eq!(store.console(7).expect("a connection"), Some(keys));
        assert_eq!(next(&mut store), Some(Change::Console(7)));
        store.publish(7, "/dev/pts/1").expect("a connection");
        let tty = tool
            .read_text("/local/domain/7/console/tty")
            .expect("an answer");
        assert_eq!(tty.as_deref(), Some("/dev/pts/1"));
        store.unwatch(7).expect("a connection");
        store.unwatch(7).expect("a refusal is no lost connection");
        assert_eq!(store.domains().expect("a connection"), Vec::<u16>::new());
    }
}
