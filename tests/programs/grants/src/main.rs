//! Grants and grant mappings as Linux makes them: pages of `/dev/xen/gntalloc`, mapped again and copied by `/dev/xen/gntdev`
//! in the same domain. Prints `grants: ok`, or fails with what does not hold.

mod devices;

use std::error::Error;

use devices::{Allocated, Device, Mapped, Segment, copy};

type Failure = Box<dyn Error>;

/// Pages in one go: more than the kernel or the hypervisor do at a time.
const PAGES: usize = 70;
/// How often all of it is done.
const ROUNDS: u32 = 20;
/// The domain that this runs in.
const OWN_DOMAIN: u16 = 0;

fn main() -> Result<(), Failure> {
    let (alloc, map) = (
        Device::open("/dev/xen/gntalloc")?,
        Device::open("/dev/xen/gntdev")?,
    );
    for round in 0..ROUNDS {
        mapped_pages_are_the_same(&alloc, &map, round)?;
    }
    copies_arrive(&alloc, &map)?;
    rights_hold(&alloc, &map)?;
    println!("grants: ok");
    Ok(())
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn mapped_pages_are_the_same(alloc: &Device, map: &Device, round: u32) -> Result<(), Failure> {
    let mut granted = Allocated::new(alloc, OWN_DOMAIN, PAGES, true)?;
    for page in 0..PAGES {
        granted.pages().write(page, 0, round << 16 | page as u32);
    }
    let mut mapped = Mapped::new(map, OWN_DOMAIN, granted.grants(), true)?;
    for page in 0..PAGES {
        let value = mapped.pages().read(page, 0);
        expect(
            value == round << 16 | page as u32,
            &format!("round {round}: page {page} reads {value:#x} by its grant"),
        )?;
        mapped.pages().write(page, 1, !value);
        expect(
            granted.pages().read(page, 1) == !value,
            "a write by the grant does not arrive",
        )?;
    }
    Ok(())
}

fn copies_arrive(alloc: &Device, map: &Device) -> Result<(), Failure> {
    let mut granted = Allocated::new(alloc, OWN_DOMAIN, 2, true)?;
    granted.pages().write(0, 5, 0x1234_5678);
    let grants = granted.grants().to_vec();
    let mut local = vec![0u32; 2048];
    copy(
        map,
        &mut [
            Segment::from_grant(OWN_DOMAIN, grants[0], 20, &mut local[1000], 4),
            Segment::to_grant(&mut local[1000], OWN_DOMAIN, grants[1], 4000, 4),
        ],
    )?;
    expect(local[1000] == 0x1234_5678, "a copy from a grant is wrong")?;
    expect(
        granted.pages().read(1, 1000) == 0x1234_5678,
        "a copy to a grant is wrong",
    )?;
    let mut bad = [Segment::from_grant(OWN_DOMAIN, 30_000, 0, &mut local[0], 4)];
    copy(map, &mut bad)?;
    expect(bad[0].status() < 0, "a copy from no grant is no error")
}

fn rights_hold(alloc: &Device, map: &Device) -> Result<(), Failure> {
    let granted = Allocated::new(alloc, OWN_DOMAIN, 1, false)?;
    let mut read_only = Mapped::new(map, OWN_DOMAIN, granted.grants(), false)?;
    expect(read_only.pages().read(0, 0) == 0, "a new page is not empty")?;
    expect(
        Mapped::new(map, OWN_DOMAIN, granted.grants(), true).is_err(),
        "what is granted for reading can be mapped for writing",
    )?;
    expect(
        Mapped::new(map, OWN_DOMAIN, &[30_000], true).is_err(),
        "what is not granted can be mapped",
    )?;
    expect(
        Mapped::new(map, 999, granted.grants(), true).is_err(),
        "nobody's grant can be mapped",
    )
}
