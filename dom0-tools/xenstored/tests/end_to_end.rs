//! The program itself, on a real socket, with several clients and killed now and then.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oxen_xenstore::client::{Client, Error, Event, Requests};
use oxen_xenstore::wire::Errno;

struct Daemon {
    child: Child,
    directory: PathBuf,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_xenstored"))
            .args(["--no-domains", "--socket"])
            .arg(directory.join("socket"))
            .arg("--state")
            .arg(directory.join("state"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        Self {
            child,
            directory: directory.to_owned(),
        }
    }

    fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Client::connect(self.directory.join("socket")) {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn kill(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn event(path: &str, token: &str) -> Option<Event> {
    Some(Event {
        path: path.to_owned(),
        token: token.to_owned(),
    })
}

const SOON: Option<Duration> = Some(Duration::from_secs(10));
const AT_ONCE: Option<Duration> = Some(Duration::from_millis(100));

#[test]
fn clients_read_write_and_hear_of_each_other() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let daemon = Daemon::start(directory.path());
    let (mut writer, mut watcher) = (daemon.client(), daemon.client());
    watcher.watch("/a", "t")?;
    assert_eq!(watcher.wait_event(SOON)?, event("/a", "t"));
    writer.write("/a/b", "1")?;
    assert_eq!(watcher.wait_event(SOON)?, event("/a/b", "t"));
    assert_eq!(watcher.read_text("/a/b")?.as_deref(), Some("1"));
    assert_eq!(watcher.read_text("/a/c")?, None);
    writer.set_permissions("/a/b", &["n0", "r5"])?;
    assert_eq!(writer.permissions("/a/b")?.count(), 2);
    assert_eq!(watcher.wait_event(SOON)?, event("/a/b", "t"));
    watcher.unwatch("/a", "t")?;
    assert!(writer.remove("/a")?);
    assert_eq!(watcher.wait_event(AT_ONCE)?, None);
    assert!(!writer.remove("/a/b/c")?);
    let error = writer.write("/a b", "").expect_err("a bad path");
    assert_eq!(
        error.to_string(),
        "xenstore: write /a b: invalid argument (EINVAL)"
    );
    for number in 0..1000 {
        writer.make_directory(&format!("/many/child-{number:04}"))?;
    }
    let names = watcher.directory("/many")?;
    assert_eq!(
        (names.len(), names.last().map(String::as_str)),
        (1000, Some("child-0999"))
    );
    assert!(writer.control(&["help"])?.contains("stats"));
    assert_eq!(writer.control(&["check"])?, "OK");
    Ok(())
}

#[test]
fn introductions_are_told() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let daemon = Daemon::start(directory.path());
    let (mut tool, mut watcher) = (daemon.client(), daemon.client());
    watcher.watch("@introduceDomain", "i")?;
    watcher.watch("@releaseDomain", "r")?;
    assert!(watcher.wait_event(SOON)?.is_some() && watcher.wait_event(SOON)?.is_some());
    tool.introduce(5, 1000, 3)?;
    assert_eq!(watcher.wait_event(SOON)?, event("@introduceDomain", "i"));
    assert!(tool.is_introduced(5)?);
    assert_eq!(tool.domain_path(5)?, "/local/domain/5");
    tool.release(5)?;
    assert_eq!(watcher.wait_event(SOON)?, event("@releaseDomain", "r"));
    assert_eq!(
        tool.release(5).expect_err("it is gone").errno(),
        Some(Errno::NotFound)
    );
    Ok(())
}

#[test]
fn transactions_of_several_clients_all_get_through() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let daemon = Daemon::start(directory.path());
    daemon.client().write("/counter", "0")?;
    let count = |mut client: Client| {
        for _ in 0..50 {
            client.transaction(|transaction| {
                let value: u32 = transaction
                    .read_text("/counter")?
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                transaction.write("/counter", (value + 1).to_string())
            })?;
        }
        Ok::<_, Error>(())
    };
    let clients: Vec<_> = (0..4)
        .map(|_| daemon.client())
        .map(|client| std::thread::spawn(move || count(client)))
        .collect();
    for client in clients {
        client.join().expect("no panic")?;
    }
    assert_eq!(
        daemon.client().read_text("/counter")?.as_deref(),
        Some("200")
    );
    Ok(())
}

#[test]
fn kills_lose_nothing_that_was_answered() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let mut daemon = Daemon::start(directory.path());
    for round in 0..8_u64 {
        let mut client = daemon.client();
        if round == 0 {
            client.introduce(7, 1, 1)?;
        }
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20 + 7 * round));
            daemon.kill();
        });
        let mut answered = 0_u64;
        while client
            .write(&format!("/r{round}/n{}", answered + 1), "v")
            .is_ok()
        {
            answered += 1;
        }
        killer.join().expect("no panic");
        daemon = Daemon::start(directory.path());
        let mut client = daemon.client();
        let found = client
            .directory(&format!("/r{round}"))
            .map_or(0, |names| names.len());
        let found = u64::try_from(found).expect("a count");
        assert!(
            found == answered || found == answered + 1,
            "{found} nodes are there and {answered} were answered"
        );
        assert!(client.is_introduced(7)?);
    }
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_help_is_given() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(directory.path());
    daemon.client();
    let run = |arguments: &[&std::ffi::OsStr]| {
        Command::new(env!("CARGO_BIN_EXE_xenstored"))
            .args(arguments)
            .output()
            .expect("it runs")
    };
    let (socket, state) = (
        directory.path().join("other"),
        directory.path().join("state"),
    );
    let second = run(&[
        "--no-domains".as_ref(),
        "--socket".as_ref(),
        socket.as_os_str(),
        "--state".as_ref(),
        state.as_os_str(),
    ]);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another xenstored runs"));
    let help = run(&["--help".as_ref()]);
    assert!(
        help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--no-domains")
    );
}
