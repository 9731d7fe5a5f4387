use super::model::{DOMID, Model};
use super::*;
use crate::Config;
use oxen_xen::domain::CreateDomain;
use std::fs;
use tempfile::TempDir;

const KERNEL_AT: u64 = 0x100_0000;
const TEXT: &[u8] = b"\x90\x90\xF4\xEB";

/// A PVH kernel of four bytes and a bss.
pub(crate) fn kernel() -> Vec<u8> {
    const NOTE: usize = 64 + 2 * 56;
    let mut file = vec![0; 0x100];
    file[..7].copy_from_slice(b"\x7FELF\x02\x01\x01");
    file[18] = 62;
    file[32] = 64;
    file[54] = 56;
    file[56] = 2;
    let mut header = |at: usize, kind: u8, offset: usize, size: usize, memory: u64| {
        file[at] = kind;
        file[at + 8..at + 16].copy_from_slice(&(offset as u64).to_le_bytes());
        file[at + 24..at + 32].copy_from_slice(&KERNEL_AT.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&(size as u64).to_le_bytes());
        file[at + 40..at + 48].copy_from_slice(&memory.to_le_bytes());
    };
    header(64, 1, 0xF0, TEXT.len(), 0x2000);
    header(120, 4, NOTE, 20, 20);
    file[NOTE] = 4;
    file[NOTE + 4] = 4;
    file[NOTE + 8] = 18;
    file[NOTE + 12..NOTE + 15].copy_from_slice(b"Xen");
    file[NOTE + 16..NOTE + 20].copy_from_slice(&(KERNEL_AT as u32).to_le_bytes());
    file[0xF0..0xF0 + TEXT.len()].copy_from_slice(TEXT);
    file
}

fn config(directory: &TempDir, memory_mib: u64) -> Config {
    let path = |name: &str| directory.path().join(name);
    fs::write(path("kernel"), kernel()).expect("a writable directory");
    fs::write(path("ramdisk"), vec![7; 5000]).expect("a writable directory");
    Config {
        name: "demo".to_owned(),
        domain: CreateDomain {
            vcpus: 2,
            ..CreateDomain::default()
        },
        kernel: path("kernel"),
        ramdisk: Some(path("ramdisk")),
        cmdline: "console=hvc0".to_owned(),
        memory_mib,
        max_memory_mib: None,
    }
}

fn guest(memory_mib: u64) -> Guest {
    let directory = TempDir::new().expect("a directory");
    Guest::load(&config(&directory, memory_mib), None).expect("a sound guest")
}

#[test]
fn a_guest_has_its_memory_its_contents_and_its_rings() {
    let (model, guest) = (Model::default(), guest(32));
    let layout = guest.layout().clone();
    let built = guest.build(&model).expect("it is built");
    assert_eq!(built.domid, DOMID);
    assert_ne!(built.store.port, built.console.port);
    assert_eq!(model.pages.borrow().len() as u64, layout.ram_pages() + 3);
    assert_eq!(model.most_claimed.get(), layout.ram_pages() + 3);
    assert_eq!(model.claimed.get(), 0);
    assert_eq!(model.read(KERNEL_AT, 6), [0x90, 0x90, 0xF4, 0xEB, 0, 0]);
    assert_eq!(model.read(layout.ramdisk.start, 5000), [7; 5000]);
    assert_eq!(
        model.read(layout.start_info.start, 4),
        [0x78, 0xC5, 0x6E, 0x33]
    );
    assert_eq!(model.read(layout.acpi.start, 8), *b"RSD PTR ");
    let params = model.params.borrow();
    assert_eq!(params[&param::CONSOLE_PFN], CONSOLE_GFN);
    assert_eq!(params[&param::STORE_EVTCHN], u64::from(built.store.port));
    let context = model.context.borrow();
    assert_eq!(
        context[40 + 520..][..8],
        layout.start_info.start.to_le_bytes()
    );
    assert!(model.alive.get());
}

#[test]
fn a_failure_at_any_step_leaves_no_domain() {
    let all = Model::default();
    guest(32).build(&all).expect("it is built");
    for failing in 0..all.calls.get() {
        let model = Model {
            failing_call: Some(failing),
            ..Model::default()
        };
        // A large extent that is not to be had is no failure: smaller ones are taken.
        match guest(32).build(&model) {
            Ok(_) => assert!(model.orders.borrow().contains(&0), "call {failing}"),
            Err(error) => {
                assert_eq!(
                    model.destroyed.get(),
                    failing > 0,
                    "call {failing}: {error}"
                );
                assert!(error.to_string().contains("ox dmesg"), "{error}");
            }
        }
        assert_eq!(model.alive.get(), !model.destroyed.get() && failing > 0);
    }
}

#[test]
fn without_large_extents_small_ones_are_taken() {
    for largest in [0, 9, 18] {
        let model = Model {
            largest_order: Some(largest),
            ..Model::default()
        };
        guest(64).build(&model).expect("it is built");
        assert_eq!(model.pages.borrow().len(), 64 * 256 + 3);
        assert!(model.orders.borrow().iter().all(|&order| order <= largest));
    }
}

#[test]
fn a_machine_without_memory_says_so_and_gets_it_back() {
    let model = Model {
        free_pages: Some(5000),
        ..Model::default()
    };
    let error = guest(32).build(&model).expect_err("too little memory");
    assert!(matches!(error, BuildError::OutOfMemory { wanted_mib: 32 }));
    assert!(model.destroyed.get());
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    let directory = TempDir::new().expect("a directory");
    let good = config(&directory, 32);
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut bad = good.clone();
        change(&mut bad);
        Guest::load(&bad, None)
            .expect_err("a bad configuration")
            .to_string()
    };
    assert!(refused(&|c| c.memory_mib = 0).contains("demo: memory"));
    assert!(refused(&|c| c.memory_mib = 8).contains("set memory to 17 or more"));
    assert!(refused(&|c| c.domain.vcpus = 0).contains("vcpus"));
    assert!(refused(&|c| c.domain.vcpus = 1000).contains("vcpus"));
    assert!(refused(&|c| c.cmdline = "x".repeat(3000)).contains("3000 bytes"));
    assert!(refused(&|c| c.kernel = "/nonexistent".into()).contains("/nonexistent"));
    assert!(refused(&|c| c.ramdisk = Some("/".into())).contains("/: cannot be read"));
    let ramdisk = good.ramdisk.clone().unwrap_or_default();
    assert!(refused(&|c| c.kernel = ramdisk.clone()).contains("neither a bzImage"));
}

/// `OXEN_TEST_KERNELS`: paths of distribution kernels, separated by colons.
#[test]
fn distribution_kernels_are_placed() {
    let Ok(paths) = std::env::var("OXEN_TEST_KERNELS") else {
        println!("skipped: OXEN_TEST_KERNELS names no kernels");
        return;
    };
    for path in paths.split(':') {
        let config = Config {
            kernel: path.into(),
            memory_mib: 256,
            ..Config::default()
        };
        let guest = Guest::load(&config, None).unwrap_or_else(|error| panic!("{error}"));
        println!("{path}: entry {:#x}, {:x?}", guest.entry, guest.layout());
        assert_eq!(guest.layout().kernel.start, KERNEL_AT);
    }
}
