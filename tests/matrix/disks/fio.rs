//! fio in a guest, which writes what it can tell again (crc32c over each piece) and verifies it: pieces of many sizes, few and many at a time,
//! on a file, a block device and a qcow2 image.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::Kind;
use xtask::provision::fio;

use super::{Guest, KERNEL, patient, qcow2};
use crate::domains::USERSPACE;
use crate::hostile::number;
use crate::{Case, checks};

/// How often the whole table is gone through, with other data each time.
const ROUNDS_VARIABLE: &str = "OXEN_FIO_ROUNDS";
/// Where dom0 has the tool, which the guest reads off a disk.
const TOOL: &str = "/root/fio";
/// The guest's disks: in a file, on a block device, in a qcow2 image. Each has 4 MiB.
const DISKS: [&str; 3] = ["xvda", "xvdb", "xvdc"];
/// Sizes of pieces, and how many are under way at a time.
const POINTS: [(&str, u32); 5] = [
    ("512", 4),
    ("4k", 1),
    ("4k", 32),
    ("64k", 8),
    // More than a request holds.
    ("1m", 4),
];
/// Functions of the guest's shell: `load DISK ACCESS SIZE DEPTH OPTIONS` is fio, which fails if anything is not what it wrote; `point`
/// does all kinds of accesses.
const FUNCTIONS: [&str; 2] = [
    "load() { d=$1; rw=$2; bs=$3; depth=$4; shift 4; /fio --name=load --filename=/dev/$d --rw=$rw --bs=$bs --iodepth=$depth --direct=1 --ioengine=io_uring --thread --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=0 --output=/said $@ || { grep verify /said | head -n 3; tail -n 5 /said; false; }; }",
    "point() { load $1 randrw $2 $3 && load $1 write $2 $3 --do_verify=0 && load $1 read $2 $3; }",
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "disks::fio_verifies", verifies))
        .collect()
}

fn verifies(name: &str, kind: Kind) -> Result<(), Failure> {
    let rounds = number(ROUNDS_VARIABLE)?.unwrap_or(1);
    let mut setup = patient(name, kind)?;
    add_to(&mut setup)?;
    let mut dom0 = setup.boot()?;
    dom0.run(&format!(
        "modprobe brd rd_nr=1 rd_size=4096 && truncate -s 4M /root/raw && truncate -s $((($(stat -c %s {TOOL})+511)/512*512)) {TOOL}; n=0; until grep -q connected /var/log/xen/oxblk.log; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done"
    ))?;
    let disks = format!(
        "disk=[\"/root/raw,raw,xvda,w\", \"/dev/ram0,raw,xvdb,w\", \"format=qcow2,vdev=xvdc,access=rw,target={}\", \"{TOOL},raw,xvdd,r\"]",
        qcow2::PATH
    );
    let config = [
        "memory=192",
        "ramdisk=\"/boot/guest/initrd\"",
        "extra=\"console=hvc0 cryptomgr.notests\"",
        &disks,
    ];
    checks::create_guest(&mut dom0, super::GUEST, KERNEL, &config)?;
    checks::guest_says(&mut dom0, super::GUEST, USERSPACE, checks::GUEST_BOOTS)?;
    let mut guest = Guest {
        dom0: &mut dom0,
        asked: 0,
    };
    for function in FUNCTIONS {
        guest.defines(function)?;
    }
    let said = guest.run("dd if=/dev/xvdd of=/fio bs=64k && chmod +x /fio && echo fine")?;
    ensure!(said.ends_with("fine"), "no fio in the guest: {said}");
    for _ in 0..rounds {
        for disk in DISKS {
            for (size, depth) in POINTS {
                let said = guest.run(&format!("point {disk} {size} {depth} && echo fine"))?;
                ensure!(
                    said.ends_with("fine"),
                    "{disk}, {size} bytes, {depth} at a time: {said}"
                );
            }
        }
    }
    notices(&mut guest)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn add_to(setup: &mut Setup) -> Result<(), Failure> {
    qcow2::Image::add(setup)?;
    setup.add_file(TOOL, &fio::binary()?)
}

/// The test can fail: what dom0 changes behind the guest's back is found.
fn notices(guest: &mut Guest<'_>) -> Result<(), Failure> {
    let said = guest.run("load xvda write 4k 8 --do_verify=0 && echo fine")?;
    ensure!(said.ends_with("fine"), "{said}");
    guest
        .dom0
        .run("head -c 16 /dev/urandom | dd of=/root/raw bs=16 seek=100100 conv=notrunc")?;
    let said = guest.run("load xvda read 4k 8 && echo fine")?;
    ensure!(
        said.contains("verify") && !said.ends_with("fine"),
        "fio has not seen that a block is another: {said}"
    );
    Ok(())
}
