//! Records and locks in a directory.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn record(name: &str, domid: u16) -> Record {
    let text = format!("type='pvh'; name='{name}'; kernel='/k'; memory=64");
    let parsed = oxen_config::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    Record {
        uuid: Uuid::from_u128(domid.into()),
        config: parsed.config,
        phase: Phase::Running { domid, since: 7 },
        restarts: 0,
        in_vain: 0,
    }
}

#[test]
fn a_record_is_there_until_it_is_removed() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let directory = &directory.path().join("made/when/needed");
    assert_eq!(all(directory)?, []);
    for name in ["b", "a", "..", &"x".repeat(200)] {
        let held = Held::take(directory, name)?;
        assert_eq!(held.read()?, None);
        held.write(&record(name, 3))?;
        assert_eq!(of_name(directory, name)?, Some(record(name, 3)));
    }
    assert_eq!(all(directory)?.len(), 4);
    assert!(of_domain(directory, 3, Uuid::from_u128(3))?.is_some());
    assert_eq!(of_domain(directory, 3, Uuid::from_u128(4))?, None);
    assert_eq!(of_domain(directory, 4, Uuid::from_u128(3))?, None);
    let held = Held::take(directory, "a")?;
    held.remove()?;
    held.remove()?;
    assert_eq!(held.read()?, None);
    fs::write(directory.join("_bad.json"), "{")?;
    assert_eq!(all(directory)?.len(), 3);
    Ok(())
}

#[test]
fn locks_of_the_killed_are_swept_and_those_in_use_are_not() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    Held::sweep(&directory.path().join("nowhere"))?;
    let held = Held::take(directory.path(), "held")?;
    // A process that is killed does not come to remove its own.
    fs::write(directory.path().join("_killed.lock"), "")?;
    fs::write(directory.path().join("_killed.new"), "{")?;
    fs::write(directory.path().join("_older.new"), "{")?;
    held.write(&record("held", 3))?;
    Held::sweep(directory.path())?;
    let mut left: Vec<_> = fs::read_dir(directory.path())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    left.sort();
    assert_eq!(left, ["_held.json", "_held.lock"]);
    Ok(())
}

#[test]
fn only_one_holds_a_name() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let held = Held::take(directory.path(), "a")?;
    assert!(Held::try_take(directory.path(), "a")?.is_none());
    assert!(Held::try_take(directory.path(), "b")?.is_some());
    let (sender, receiver) = mpsc::channel();
    let path = directory.path().to_owned();
    let waiter = std::thread::spawn(move || {
        let held = Held::take(&path, "a");
        let _ = sender.send(held.is_ok());
    });
    assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err());
    drop(held);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
    assert!(waiter.join().is_ok());
    // Nothing is left of the locks.
    assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}
