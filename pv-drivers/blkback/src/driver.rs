//! What a disk offers, and a worker for each that is connected.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use clap::ValueEnum;
use oxen_backend::worker::Workers;
use oxen_backend::{DeviceId, Driver, Ends, Event, Failure, Nodes, Written};
use oxen_blkif::{Abi, info};

use crate::image::{Format, Geometry, Image};
use crate::ring::MOST_INDIRECT;
use crate::worker::QueueAt;

/// A ring has at most so many pages, as a power of two: 512 requests.
const MOST_RING_ORDER: u32 = 4;
/// Queues of a disk: more than this many CPUs of a guest share some.
const MOST_QUEUES: u32 = 4;

/// Whether the guest is offered to keep its grants, as the toolstack says.
const KEEP_GRANTS: &str = "persistent-enable";
/// The same as both ends say it to each other.
const PERSISTENT: &str = "feature-persistent";

/// The disks.
#[derive(Debug, Default)]
pub struct Disks {
    workers: Workers,
}

/// What the toolstack says of a disk.
struct Wanted {
    image: PathBuf,
    format: Format,
    read_only: bool,
    discard: bool,
    keep_grants: bool,
    cdrom: bool,
}

impl Wanted {
    fn read(back: &mut Nodes<'_>) -> Result<Self, Failure> {
        Ok(Self {
            image: PathBuf::from(back.required_text("params")?),
            format: format(back)?,
            read_only: back.required_text("mode")? != "w",
            discard: back.number::<u32>("discard-enable")? != Some(0),
            keep_grants: back.flag(KEEP_GRANTS)?,
            cdrom: back.text("device-type")?.as_deref() == Some("cdrom"),
        })
    }

    fn geometry(&self) -> Result<Geometry, Failure> {
        let image = Image::open(&self.image, self.format, self.read_only);
        let mut geometry = (image.map_err(|error| Failure::Host(error.to_string()))?).geometry;
        geometry.discard = geometry.discard.filter(|_| self.discard);
        Ok(geometry)
    }
}

/// The image's format, which is never guessed: a guest that may write a raw image could make it look like another.
fn format(back: &mut Nodes<'_>) -> Result<Format, Failure> {
    match back.text("format")? {
        None => Ok(Format::Raw),
        Some(name) => Format::from_str(&name, false)
            .map_err(|_| back.wrong(format!("format: {name:?} is not known"))),
    }
}

impl Driver for Disks {
    const KIND: &'static str = "oxblk";

    fn offer(&mut self, _: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        let wanted = Wanted::read(&mut ends.back())?;
        let geometry = wanted.geometry()?;
        let mut nodes = vec![
            ("feature-flush-cache", 1),
            ("feature-barrier", 1),
            ("feature-max-indirect-segments", u32::from(MOST_INDIRECT)),
            (PERSISTENT, u32::from(wanted.keep_grants)),
            ("max-ring-page-order", MOST_RING_ORDER),
            ("multi-queue-max-queues", MOST_QUEUES),
            ("feature-discard", u32::from(geometry.discard.is_some())),
        ];
        if let Some(granularity) = geometry.discard {
            nodes.extend([
                ("discard-granularity", granularity),
                ("discard-alignment", 0),
                ("discard-secure", 0),
            ]);
        }
        Ok(written(&nodes))
    }

    fn connect(&mut self, device: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        let wanted = Wanted::read(&mut ends.back())?;
        let geometry = wanted.geometry()?;
        let (abi, queues) = read_queues(&mut ends.front())?;
        let mut arguments: Vec<OsString> = vec![
            "serve".into(),
            "--domid".into(),
            device.domid.to_string().into(),
            "--number".into(),
            device.number.to_string().into(),
            "--abi".into(),
            abi.name().into(),
        ];
        for queue in &queues {
            arguments.extend(["--queue".into(), queue.to_string().into()]);
        }
        if let Some(format) = wanted.format.to_possible_value() {
            arguments.extend(["--format".into(), format.get_name().into()]);
        }
        if wanted.read_only {
            arguments.push("--read-only".into());
        }
        if wanted.keep_grants && ends.front().flag(PERSISTENT)? {
            arguments.push("--keep-grants".into());
        }
        if !wanted.discard {
            arguments.push("--no-discard".into());
        }
        let mut image = OsString::from("--image=");
        image.push(&wanted.image);
        arguments.push(image);
        self.workers
            .start(device, &arguments)
            .map_err(|error| Failure::Host(format!("no worker can be started: {error}")))?;
        let mut bits = 0;
        if wanted.read_only {
            bits |= info::READ_ONLY;
        }
        if wanted.cdrom {
            bits |= info::CDROM | info::REMOVABLE;
        }
        let mut nodes = written(&[
            ("info", bits),
            ("sector-size", geometry.sector_size),
            ("physical-sector-size", geometry.physical_sector_size),
        ]);
        nodes.push(("sectors".to_owned(), geometry.sectors.to_string()));
        Ok(nodes)
    }

    fn disconnect(&mut self, device: DeviceId) -> bool {
        self.workers.stop(device)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.workers.descriptors()
    }

    fn events(&mut self) -> Vec<Event> {
        self.workers.events()
    }
}

fn written(nodes: &[(&str, u32)]) -> Written {
    let node = |(name, value): &(&str, u32)| ((*name).to_owned(), value.to_string());
    nodes.iter().map(node).collect()
}

/// Where the guest says that its queues are.
fn read_queues(front: &mut Nodes<'_>) -> Result<(Abi, Vec<QueueAt>), Failure> {
    let abi = match front.text("protocol")? {
        None => Abi::default(),
        Some(name) => Abi::from_name(&name)
            .ok_or_else(|| front.wrong(format!("protocol: {name:?} is not known")))?,
    };
    let count = front.number::<u32>("multi-queue-num-queues")?;
    let bounds = 1..=MOST_QUEUES;
    if let Some(count) = count.filter(|count| !bounds.contains(count)) {
        return Err(front.wrong(format!("multi-queue-num-queues: {count}")));
    }
    let order = front.number::<u32>("ring-page-order")?;
    if let Some(order) = order.filter(|order| *order > MOST_RING_ORDER) {
        return Err(front.wrong(format!("ring-page-order: {order}")));
    }
    let names = match count {
        // One queue may be announced either way.
        None | Some(1) if front.text("queue-0/event-channel")?.is_none() => vec![String::new()],
        count => (0..count.unwrap_or(1))
            .map(|nth| format!("queue-{nth}/"))
            .collect(),
    };
    let queues = names.into_iter().map(|below| {
        let pages = match order {
            None => vec![front.required(&format!("{below}ring-ref"))?],
            // A single page has the old name, also where its order is given.
            Some(0) if front.text(&format!("{below}ring-ref0"))?.is_none() => {
                vec![front.required(&format!("{below}ring-ref"))?]
            }
            Some(order) => (0..1 << order)
                .map(|nth| front.required(&format!("{below}ring-ref{nth}")))
                .collect::<Result<_, _>>()?,
        };
        Ok(QueueAt {
            port: front.required(&format!("{below}event-channel"))?,
            pages,
        })
    });
    let queues = queues.collect::<Result<_, Failure>>()?;
    Ok((abi, queues))
}
