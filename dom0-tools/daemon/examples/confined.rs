//! Confines itself to one directory and the file beside it that has `.used` behind the directory's name, tries what it gave up, and prints
//! a line for each attempt: `confined DIRECTORY`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use oxen_daemon::confine::{Needs, confine};

fn main() {
    let own = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "/tmp".into()));
    let held = own.join("held");
    let used = own.with_extension("used");
    let opened = File::create(&held).is_ok() && File::create(&used).is_ok();
    confine(&Needs {
        writes: &[&own],
        uses: &[&used],
        ..Needs::default()
    });
    let report = |what: &str, result: io::Result<()>| {
        let how = match result {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        println!("{what}: {how}");
    };
    let file = own.join("file");
    report(
        "own file",
        fs::write(&file, "text").and_then(|()| fs::rename(&file, &held)),
    );
    report("own file again", fs::read(&held).map(drop));
    report(
        "local socket",
        UnixListener::bind(own.join("socket")).map(drop),
    );
    let write = File::options().write(true).open(&used);
    report(
        "used file",
        write.and_then(|mut file| file.write_all(b"text")),
    );
    report("used file gone", fs::remove_file(&used));
    report("other file", File::open("/proc/version").map(drop));
    report("other directory", fs::read_dir("/etc").map(drop));
    report("program", Command::new("/bin/true").status().map(drop));
    report("network", TcpListener::bind("127.0.0.1:0").map(drop));
    let thread = std::thread::spawn(|| File::open("/proc/version").map(drop));
    report("thread", thread.join().unwrap_or(Ok(())));
    let status = fs::read_to_string("/proc/self/status")
        .err()
        .map(|error| error.kind());
    println!("opened before: {opened}; of itself: {status:?}");
}
