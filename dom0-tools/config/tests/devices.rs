//! Disks and network interfaces.

use oxen_config::disk::{DiskBackend, DiskFormat, DiskSpec};
use oxen_config::vif::{Mac, Rate, VifBackend, VifSpec};
use proptest::prelude::*;

fn disk(text: &str) -> DiskSpec {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn vif(text: &str) -> VifSpec {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_forms_of_a_disk_say_the_same() {
    let volume = disk("/dev/vg/guest-volume,,hda");
    assert_eq!(volume.target.as_deref(), Some("/dev/vg/guest-volume"));
    assert_eq!((volume.vdev.as_str(), volume.read_only), ("hda", false));
    for same in [
        "/dev/vg/guest-volume,raw,hda,rw",
        " format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume",
        "raw:/dev/vg/guest-volume,hda,w",
    ] {
        assert_eq!(disk(same), volume, "{same}");
    }
    let cdrom = disk("/root/image.iso,,hdc,cdrom");
    assert!(cdrom.cdrom && cdrom.read_only);
    for same in [
        "/root/image.iso,,hdc,,cdrom",
        "/root/image.iso,raw,hdc,devtype=cdrom",
        "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
        "raw:/root/image.iso,hdc:cdrom,ro",
        // A disc is not written, whatever `access` says.
        "/root/image.iso,raw,hdc,rw,cdrom",
    ] {
        assert_eq!(disk(same), cdrom, "{same}");
    }
}

#[test]
fn places_are_those_of_what_has_no_name_yet() {
    let volume = disk("/a,raw,xvda,ro");
    for same in [
        "format=raw,/a,xvda,ro",
        "vdev=xvda,/a,raw,ro",
        "access=ro,vdev=xvda,/a,",
        "raw:/a,access=ro,xvda",
    ] {
        assert_eq!(disk(same), volume, "{same}");
    }
    let words = ["target=/a", "vdev=xvda", "ro"];
    assert!(DiskSpec::from_words(&words).is_err(), "ro is no format");
    let words = ["target=/a", "vdev=xvda,raw", "ro"];
    assert_eq!(DiskSpec::from_words(&words).ok(), Some(volume));
}

#[test]
fn a_named_target_takes_the_rest() {
    let named = disk("vdev=xvda,backendtype=qdisk,no-discard,untrusted,target=/a, b,c=d ");
    assert_eq!(named.target.as_deref(), Some("/a, b,c=d "));
    assert_eq!(named.backend_type, Some(DiskBackend::Qdisk));
    assert_eq!((named.discard, named.trusted), (Some(false), Some(false)));
    assert_eq!(named.persistent, None);
    assert_eq!(
        disk("vdev=xvda,persistent,target=/x").persistent,
        Some(true)
    );
    assert_eq!(disk(",,xvdb,target=/x").target.as_deref(), Some("/x"));
    assert_eq!(disk("vdev=hdc,cdrom").format, DiskFormat::Empty);
}

#[test]
fn wrong_disks_are_explained() {
    for (text, why) in [
        ("", "the device that the guest sees is missing"),
        ("/a,raw", "the device that the guest sees is missing"),
        ("vdev=xvda", "the target is missing"),
        (
            "/a,rwa,xvda",
            "format cannot be \"rwa\"; it takes raw, qcow,",
        ),
        (
            "/a,raw,xvda,x",
            "access cannot be \"x\"; it takes ro, r, rw, w",
        ),
        ("/a,raw,xvda,w,b", "unknown parameter \"b\""),
        ("/a,raw,xvda,vedv=xvdb", "did you mean \"vdev\"?"),
        ("/a,raw,xvda,vdev=xvdb", "vdev is given twice"),
        ("/a,raw,xvda,target=/b", "target is given twice"),
        ("nbd:/a,xvda,w", "the prefix cannot be \"nbd\""),
        ("/a,raw,../x,w", "vdev cannot be"),
        ("/a,raw,xvda,w,colo", "replication"),
    ] {
        match text.parse::<DiskSpec>() {
            Ok(disk) => panic!("{text}: {disk:?}"),
            Err(error) => assert!(error.to_string().contains(why), "{text}: {error}"),
        }
    }
}

#[test]
fn interfaces_are_read() {
    assert_eq!(vif(""), VifSpec::default());
    let full =
        vif("mac=00:16:3E:0:1:fe, bridge=xenbr0,rate=1MB/s@20ms,mtu=9000,untrusted,type=vif");
    assert_eq!(full.mac, Some(Mac([0, 0x16, 0x3e, 0, 1, 0xfe])));
    assert_eq!(full.bridge.as_deref(), Some("xenbr0"));
    let rate = Rate {
        bytes_per_second: 1_000_000,
        interval_us: 20_000,
    };
    assert_eq!(full.rate, Some(rate));
    for (text, interval_us) in [
        ("rate=1MB/s", 50_000),
        ("rate=1MB/s@2", 2_000_000),
        ("rate=1MB/s@2s", 2_000_000),
        ("rate=1MB/s@20m", 20_000),
        ("rate=1MB/s@20u", 20),
        ("rate=1MB/s@20us", 20),
    ] {
        let rate = Rate {
            interval_us,
            ..rate
        };
        assert_eq!(vif(text).rate, Some(rate), "{text}");
    }
    assert_eq!((full.mtu, full.trusted), (Some(9000), Some(false)));
    assert_eq!(full.backend_type, VifBackend::Ox);
    let own = vif("type=kernel,offload=0,queues=2,filter=on");
    assert_eq!(own.backend_type, VifBackend::Kernel);
    assert_eq!(
        (own.offload, own.queues, own.filter),
        (Some(false), Some(2), Some(true))
    );
    for (text, why) in [
        (
            "mac=01:00:00:00:00:00",
            "is not the address of one interface",
        ),
        ("mac=1:2:3:4:5", "is not the address of one interface"),
        ("model=e1000", "asks for an emulated interface"),
        ("rate=10", "is not a rate"),
        ("offload=maybe", "offload must be 0 or 1"),
        ("bridge=", "bridge has no value"),
        ("birdge=x", "did you mean \"bridge\"?"),
    ] {
        match text.parse::<VifSpec>() {
            Ok(vif) => panic!("{text}: {vif:?}"),
            Err(error) => assert!(error.to_string().contains(why), "{text}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in any::<String>(), near in "[a-z=,:/@0-9 .-]{0,60}") {
        for text in [&text, &near] {
            let _ = text.parse::<DiskSpec>();
            let _ = text.parse::<VifSpec>();
            let _ = text.parse::<oxen_config::CpuList>();
        }
    }

    #[test]
    fn a_disk_that_is_printed_reads_back(text in "(vdev=xvda|cdrom|backend=d0|script=s|discard|untrusted|access=r|format=vhd|backendtype=phy|specification=virtio)(,(devtype=cdrom|direct-io-safe|trusted|no-discard|persistent)){0,3}(,vdev=xvdb)?,target=[ -~]{1,12}") {
        if let Ok(disk) = text.parse::<DiskSpec>() {
            prop_assert_eq!(disk.to_string().parse::<DiskSpec>(), Ok(disk));
        }
    }
}
