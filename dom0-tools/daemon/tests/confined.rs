//! What a confined process can do, and what it cannot.

use std::path::Path;
use std::process::Command;

/// What Landlock refuses is refused where the kernel that the tests run on has it; the matrix runs the same in dom0.
#[test]
fn a_confined_process_reaches_its_own_only() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let own = directory.path().join("own");
    std::fs::create_dir(&own)?;
    // Cargo builds examples beside the tests, one folder up.
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).unwrap_or(Path::new("."));
    let output = Command::new(folder.join("examples/confined"))
        .arg(&own)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    for wanted in [
        "own file: done",
        "own file again: done",
        "local socket: done",
        "used file: done",
        "program: PermissionDenied",
        "network: PermissionDenied",
    ] {
        assert!(text.contains(wanted), "not {wanted:?} but:\n{text}");
    }
    let has_landlock = std::fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|list| list.contains("landlock"));
    for what in ["used file gone", "other file", "other directory", "thread"] {
        let wanted = format!("{what}: PermissionDenied");
        assert!(
            !has_landlock || text.contains(&wanted),
            "not {wanted:?} but:\n{text}"
        );
    }
    Ok(())
}
