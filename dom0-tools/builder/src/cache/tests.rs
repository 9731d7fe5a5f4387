//! Kernels that are kept, by one and by many.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;
use crate::build::tests::kernel as elf;

/// An ELF file that differs by its last byte.
fn kernel(number: u8) -> Vec<u8> {
    let mut bytes = elf();
    bytes.push(number);
    bytes
}

fn cache(kernels: u64) -> (TempDir, KernelCache) {
    let directory = TempDir::new().expect("a directory");
    let cache = KernelCache::new(directory.path().join("made/kernels"), kernels * size());
    (directory, cache)
}

fn size() -> u64 {
    kernel(0).len() as u64
}

/// Asks for the kernel that is packed as its number; tells how often it was unpacked for that.
fn get(cache: &KernelCache, number: u8, origin: Option<&Origin>) -> usize {
    let unpacked = Cell::new(0);
    let got = cache.get(&[number], size() as usize, origin, || {
        unpacked.set(unpacked.get() + 1);
        Ok(kernel(number))
    });
    assert_eq!(*got.expect("a kernel"), kernel(number));
    unpacked.get()
}

fn entries(cache: &KernelCache) -> Vec<String> {
    let names = fs::read_dir(&cache.directory).expect("a directory");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_kernel_is_unpacked_once() {
    let (_directory, cache) = cache(4);
    assert_eq!(get(&cache, 1, None), 1);
    assert_eq!(get(&cache, 1, None), 0);
    assert_eq!(get(&cache, 2, None), 1);
    assert_eq!(get(&cache, 1, None), 0);
    assert_eq!(entries(&cache).len(), 3);
}

#[test]
fn a_file_leads_to_its_kernel_until_it_changes() {
    let (directory, cache) = cache(4);
    let path = directory.path().join("vmlinuz");
    fs::write(&path, [1]).expect("a writable directory");
    let file = File::open(&path).expect("a file");
    // Written just now: its times are not to be relied upon.
    assert!(Origin::of(&file).is_none());
    let origin = Origin(format!("{LINK}one"));
    assert!(cache.by_origin(&origin).is_none());
    get(&cache, 1, Some(&origin));
    assert_eq!(*cache.by_origin(&origin).expect("a kernel"), kernel(1));
    // The link of a file whose number is another's now.
    get(&cache, 2, Some(&origin));
    assert_eq!(*cache.by_origin(&origin).expect("a kernel"), kernel(2));
    // A link that was tampered with leads to no file of elsewhere.
    let link = cache.directory.join(&origin.0);
    fs::remove_file(&link).expect("a link");
    symlink("/etc/../etc/passwd-1", &link).expect("a link");
    assert!(cache.by_origin(&origin).is_none());
}

#[test]
fn a_file_that_has_settled_has_a_name_of_its_own() {
    let settled = |path: &str| File::open(path).ok().and_then(|file| Origin::of(&file));
    let (Some(one), Some(again)) = (settled("/proc/self/exe"), settled("/proc/self/exe")) else {
        println!("skipped: the test was built less than two seconds ago");
        return;
    };
    assert_eq!(one.0, again.0);
    assert!(one.0.starts_with(LINK) && !one.0.contains('/') && one.0.len() < 200);
    assert_ne!(one.0, settled("/etc/passwd").expect("an old file").0);
}

#[test]
fn those_not_used_for_longest_make_room() {
    let (_directory, cache) = cache(2);
    for number in [1, 2, 1, 3] {
        get(&cache, number, None);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(get(&cache, 1, None), 0);
    assert_eq!(get(&cache, 3, None), 0);
    assert_eq!(get(&cache, 2, None), 1);
    // One that is larger than all is not kept, and costs no other its place.
    let small = KernelCache::new(&cache.directory, size() - 1);
    assert_eq!(get(&small, 4, None), 1);
    assert_eq!(get(&cache, 2, None), 0);
}

#[test]
fn what_is_damaged_or_unfinished_is_not_used_and_goes() {
    let (_directory, cache) = cache(8);
    get(&cache, 1, None);
    let kept = cache.directory.join(name(&[1], size() as usize));
    for damage in [&b"short"[..], &vec![0; size() as usize]] {
        fs::write(&kept, damage).expect("a file");
        assert_eq!(get(&cache, 1, None), 1);
        assert_eq!(get(&cache, 1, None), 0);
    }
    fs::write(cache.directory.join("new-half"), "half").expect("a file");
    symlink("nowhere-1", cache.directory.join("at-old")).expect("a link");
    get(&cache, 2, None);
    assert!(
        !entries(&cache)
            .iter()
            .any(|name| name == "new-half" || name == "at-old")
    );
}

#[test]
fn a_kernel_that_cannot_be_unpacked_leaves_nothing() {
    let (_directory, cache) = cache(8);
    let refused = cache.get(&[1], 9, None, || {
        Err(BuildError::Config("broken".to_owned()))
    });
    assert!(refused.is_err());
    assert_eq!(entries(&cache), [LOCK]);
}

#[test]
fn where_nothing_can_be_kept_kernels_are_unpacked() {
    let cache = KernelCache::new("/proc/no/such/place", 1 << 30);
    assert_eq!(get(&cache, 1, None), 1);
    assert_eq!(get(&cache, 1, None), 1);
}

#[test]
fn of_many_at_once_one_unpacks_and_the_others_wait() {
    let (_directory, cache) = cache(8);
    let unpacked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let got = cache.get(&[1], size() as usize, None, || {
                    unpacked.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(kernel(1))
                });
                assert_eq!(*got.expect("a kernel"), kernel(1));
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
}
