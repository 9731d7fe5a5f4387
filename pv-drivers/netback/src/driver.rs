//! What is agreed with a guest.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;

use oxen_backend::worker::Workers;
use oxen_backend::{DeviceId, Driver, Ends, Event, Failure, Nodes, Written};
use oxen_config::vif::Mac;

use crate::credit::Rate;
use crate::job::{Events, Guest, Job, Queue};
use crate::tap;

/// The word that makes this program a worker.
pub const SERVE: &str = "serve";
/// Queues of a card at most.
const QUEUES_MAX: u32 = 8;

/// What a guest may be offered beyond the plain protocol.
const OFFLOADS: &[&str] = &[
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-ipv6-csum-offload",
];

/// How many queues a guest may have, of what is written when a card is offered.
const OFFERED: &str = "multi-queue-max-queues";

/// The back end of network cards.
#[derive(Debug)]
pub struct Network {
    workers: Workers,
    queues: u32,
}

impl Network {
    /// Without cards yet; offers as many queues as this domain has CPUs.
    pub fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: Workers::default(),
            queues: u32::try_from(cpus).unwrap_or(QUEUES_MAX).min(QUEUES_MAX),
        }
    }

    /// What the tools have written about a card.
    fn card(&self, device: DeviceId, nodes: &mut Nodes<'_>) -> Result<Card, Failure> {
        let bridge = nodes.text("bridge")?.filter(|name| !name.is_empty());
        if let Some(bridge) = bridge.as_deref().filter(|name| !tap::is_bridge(name)) {
            return Err(nodes.wrong(format!(
                "there is no bridge {bridge:?} in this domain; `ip link add {bridge} type bridge && ip link set {bridge} up` makes one"
            )));
        }
        let mac = nodes.required_text("mac")?;
        let rate = nodes.text("rate")?.map(|text| Rate::parse(&text));
        Ok(Card {
            bridge,
            interface: nodes
                .text("vifname")?
                .unwrap_or_else(|| format!("vif{}.{}", device.domid, device.number)),
            mac: Mac::try_from(mac).map_err(|error| nodes.wrong(format!("mac: {error}")))?,
            filter: nodes.number::<u32>("filter")? != Some(0),
            offload: nodes.number::<u32>("offload")? != Some(0),
            queues: (nodes.number("queues")?)
                .unwrap_or(self.queues)
                .clamp(1, QUEUES_MAX),
            mtu: nodes.number("mtu")?,
            rate: (rate.transpose())
                .map_err(|error| nodes.wrong(error))?
                .flatten(),
        })
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// A card as the tools have described it.
struct Card {
    interface: String,
    bridge: Option<String>,
    mac: Mac,
    filter: bool,
    offload: bool,
    queues: u32,
    mtu: Option<u32>,
    rate: Option<Rate>,
}

impl Driver for Network {
    const KIND: &'static str = "oxvif";

    fn offer(&mut self, device: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        let card = self.card(device, &mut ends.back())?;
        let number = |flag: bool| u32::from(flag).to_string();
        let mut offered = vec![
            ("feature-rx-copy".to_owned(), number(true)),
            ("feature-rx-flip".to_owned(), number(false)),
            ("feature-split-event-channels".to_owned(), number(true)),
            ("feature-no-csum-offload".to_owned(), number(!card.offload)),
            (OFFERED.to_owned(), card.queues.to_string()),
            ("hotplug-status".to_owned(), "connected".to_owned()),
        ];
        offered.extend((OFFLOADS.iter()).map(|name| ((*name).to_owned(), number(card.offload))));
        Ok(offered)
    }

    fn connect(&mut self, device: DeviceId, ends: &mut Ends<'_>) -> Result<Written, Failure> {
        let card = self.card(device, &mut ends.back())?;
        // What was offered: this domain may have had more CPUs then.
        let offered = ends.back().number(OFFERED)?.unwrap_or(card.queues);
        let mut front = ends.front();
        let job = Job {
            domid: device.domid,
            number: device.number,
            interface: card.interface,
            bridge: card.bridge,
            mac: card.mac,
            filter: card.filter,
            mtu: card.mtu,
            rate: card.rate,
            guest: guest(&mut front, card.offload)?,
            queues: queues(&mut front, offered.min(QUEUES_MAX))?,
        };
        let argument = serde_json::to_string(&job)
            .map_err(|error| Failure::Host(format!("its worker's task: {error}")))?;
        let arguments = [OsString::from(SERVE), OsString::from(argument)];
        (self.workers.start(device, &arguments))
            .map_err(|error| Failure::Host(format!("no process can be started: {error}")))?;
        Ok(Vec::new())
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

/// What the guest says that it can do, as far as it is to be used.
///
/// # Errors
/// It says what makes no sense, or pages cannot be copied for it.
pub fn guest(front: &mut Nodes<'_>, offload: bool) -> Result<Guest, Failure> {
    if !front.flag("request-rx-copy")? {
        return Err(front.wrong("request-rx-copy: must be 1, pages cannot be exchanged"));
    }
    Ok(Guest {
        scatter: front.flag("feature-sg")?,
        gso4: offload && front.flag("feature-gso-tcpv4")?,
        gso6: offload && front.flag("feature-gso-tcpv6")?,
        blank4: offload && !front.flag("feature-no-csum-offload")?,
        blank6: offload && front.flag("feature-ipv6-csum-offload")?,
        tells: front.flag("feature-rx-notify")?,
    })
}

/// The guest's rings: of one queue beside its other nodes, of several below a node each.
///
/// # Errors
/// It says what makes no sense, or has more queues than were offered.
pub fn queues(front: &mut Nodes<'_>, most: u32) -> Result<Vec<Queue>, Failure> {
    let count: u32 = front.number("multi-queue-num-queues")?.unwrap_or(1);
    if !(1..=most).contains(&count) {
        return Err(front.wrong(format!(
            "multi-queue-num-queues: {count}, where 1 to {most} were offered"
        )));
    }
    (0..count)
        .map(|nth| {
            let below = if count == 1 {
                String::new()
            } else {
                format!("queue-{nth}/")
            };
            let split = port(front, &format!("{below}event-channel-tx"))?;
            let required_port = |front: &mut Nodes<'_>, key: &str| {
                port(front, key)?.ok_or_else(|| front.wrong(format!("{key}: missing")))
            };
            Ok(Queue {
                transmit: front.required(&format!("{below}tx-ring-ref"))?,
                receive: front.required(&format!("{below}rx-ring-ref"))?,
                events: match split {
                    Some(transmit) => Events::Split {
                        transmit,
                        receive: required_port(front, &format!("{below}event-channel-rx"))?,
                    },
                    None => Events::One(required_port(front, &format!("{below}event-channel"))?),
                },
            })
        })
        .collect()
}

/// An event channel's port, if the node is there. 0 is none.
fn port(front: &mut Nodes<'_>, key: &str) -> Result<Option<u32>, Failure> {
    match front.number(key)? {
        Some(0) => Err(front.wrong(format!("{key}: 0 is no port"))),
        port => Ok(port),
    }
}
