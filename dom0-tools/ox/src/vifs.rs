//! Network cards of domains: what the toolstack writes for them into xenstore.
//!
//! Keys are those of Xen's network protocol (xen-abi-7, sections 7.2 and 7.6). A card is served by `oxnet`, or by the kernel's own back end
//! where its specification says `type=kernel`; `oxnet` puts that one's interfaces into their bridges too.

use std::path::Path;

use oxen_config::VifSpec;
use oxen_config::vif::{Mac, VifBackend};
use uuid::Uuid;

use crate::devices::{Device, Server, VIFS};
use crate::failure::Failure;
use crate::host::{Access, Change, Toolstack};
use crate::{names, tree};

/// The bridge of cards that name none, as xl has it.
const BRIDGE: &str = "xenbr0";
/// Where the kernel shows its back end for network cards, once that is loaded.
const KERNEL_DRIVER: &str = "/sys/bus/xen-backend/drivers/vif";
/// The first half of addresses that are made up: Xen's own.
const MADE_UP: [u8; 3] = [0x00, 0x16, 0x3E];

/// A network card that can be served.
#[derive(Debug)]
pub struct Vif<'a> {
    spec: &'a VifSpec,
    /// Which of the domain's cards it is.
    pub number: u32,
    server: Server,
}

impl<'a> Vif<'a> {
    /// Checks that the card can be had. `number` is its place where it has no number of its own.
    pub fn check(spec: &'a VifSpec, number: u32) -> Result<Self, Failure> {
        let number = spec.devid.unwrap_or(number);
        let unsupported =
            |what: &str| Failure::NotImplemented(format!("vif {number}: {what} is not supported"));
        let kernel = spec.backend_type == VifBackend::Kernel;
        let unknown = [
            (spec.gatewaydev.is_some(), "gatewaydev="),
            (spec.ip.is_some(), "ip= (a filter of IP addresses)"),
            (spec.script.is_some(), "script="),
            (
                kernel && spec.vifname.is_some(),
                "vifname= with type=kernel",
            ),
            (
                kernel && spec.offload.is_some(),
                "offload= with type=kernel",
            ),
            (kernel && spec.queues.is_some(), "queues= with type=kernel"),
            (kernel && spec.filter.is_some(), "filter= with type=kernel"),
        ];
        if let Some((_, what)) = unknown.into_iter().find(|(given, _)| *given) {
            return Err(unsupported(what));
        }
        if let Some(domain) = &spec.backend
            && !matches!(domain.as_str(), "0" | names::CONTROL_DOMAIN)
        {
            return Err(unsupported("a back end in another domain than 0"));
        }
        if kernel && !Path::new(KERNEL_DRIVER).exists() {
            return Err(Failure::ConfigUse(format!(
                "vif {number}: the kernel's back end is not loaded; `modprobe xen-netback` loads it"
            )));
        }
        Ok(Self {
            spec,
            number,
            server: if kernel { Server::Kernel } else { Server::Ox },
        })
    }

    /// Where it is in xenstore.
    pub fn device(&self, domid: u16) -> Device {
        VIFS.device(domid, self.number, self.server)
    }

    /// Its address: the specification's, or one that the domain's identity gives, the same in all of its lives.
    pub fn mac(&self, uuid: Uuid) -> Mac {
        // Of a hash, so that identities that follow each other do not have each other's addresses.
        let hash = Uuid::new_v5(&uuid, &self.number.to_le_bytes());
        let [.., a, b, c] = *hash.as_bytes();
        let [x, y, z] = MADE_UP;
        self.spec.mac.unwrap_or(Mac([x, y, z, a & 0x7F, b, c]))
    }

    /// What makes both ends of it in xenstore.
    pub fn creation(&self, domid: u16, uuid: Uuid) -> Vec<Change> {
        let spec = self.spec;
        let Device { front, back, .. } = self.device(domid);
        let (reads, owns) = (Access::GuestReads(domid), Access::GuestOwns(domid));
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        let mac = self.mac(uuid).to_string();
        let mtu = spec.mtu.map(|mtu| mtu.to_string());
        let rate = spec.rate.map(|rate| {
            let bytes = u128::from(rate.bytes_per_second) * u128::from(rate.interval_us);
            format!("{},{}", (bytes / 1_000_000).max(1), rate.interval_us)
        });
        let bridge = spec.bridge.clone().unwrap_or_else(|| BRIDGE.to_owned());
        let back_nodes = [
            ("frontend", Some(front.clone())),
            ("frontend-id", Some(domid.to_string())),
            ("online", Some(flag(true))),
            ("type", Some("vif".to_owned())),
            ("handle", Some(self.number.to_string())),
            ("mac", Some(mac.clone())),
            ("bridge", Some(bridge)),
            ("mtu", mtu.clone()),
            ("rate", rate),
            ("vifname", spec.vifname.clone()),
            ("offload", spec.offload.map(flag)),
            ("queues", spec.queues.map(|queues| queues.to_string())),
            ("filter", spec.filter.map(flag)),
            // Linux gives a card up that has no `script`, though it does not run it. `oxnet` does what it would do, and then fills in
            // the other.
            ("script", (self.server == Server::Kernel).then(String::new)),
            (
                "hotplug-status",
                (self.server == Server::Kernel).then(String::new),
            ),
            ("state", Some("1".to_owned())),
        ];
        let front_nodes = [
            ("backend", Some(back.clone())),
            ("backend-id", Some("0".to_owned())),
            ("handle", Some(self.number.to_string())),
            ("mac", Some(mac)),
            ("mtu", mtu),
            ("trusted", spec.trusted.map(flag)),
            ("state", Some("1".to_owned())),
        ];
        let mut changes = vec![
            tree::write(back.clone(), String::new(), reads),
            tree::write(front.clone(), String::new(), owns),
        ];
        for (end, access, nodes) in [
            (&back, reads, &back_nodes[..]),
            (&front, owns, &front_nodes[..]),
        ] {
            let nodes = nodes
                .iter()
                .filter_map(|(name, value)| Some((name, value.clone()?)));
            changes.extend(
                nodes.map(|(name, value)| tree::write(format!("{end}/{name}"), value, access)),
            );
        }
        changes
    }

    /// What its user calls it.
    pub fn name(&self) -> String {
        format!("vif {}", self.number)
    }

    /// Waits until its back end has said what it offers, or why it does not.
    pub fn wait(&self, host: &mut dyn Toolstack, domid: u16) -> Result<(), Failure> {
        VIFS.wait(&self.device(domid), &self.name(), host)
    }
}

/// Checks all network cards of a configuration.
pub fn check_all(specs: &[VifSpec]) -> Result<Vec<Vif<'_>>, Failure> {
    let vifs: Vec<Vif<'_>> = (specs.iter().zip(0..))
        .map(|(spec, number)| Vif::check(spec, number))
        .collect::<Result<_, _>>()?;
    for (nth, vif) in vifs.iter().enumerate() {
        let earlier = &vifs[..nth];
        if earlier.iter().any(|other| other.number == vif.number) {
            return Err(Failure::ConfigUse(format!(
                "vif {}: the guest has another one of this number; give each a devid of its own",
                vif.number
            )));
        }
        let mac = vif.spec.mac;
        if mac.is_some() && earlier.iter().any(|other| other.spec.mac == mac) {
            return Err(Failure::ConfigUse(format!(
                "vif {}: the guest has another one with this address; give each a mac of its own",
                vif.number
            )));
        }
    }
    Ok(vifs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `netback_probe` in Linux's `drivers/net/xen-netback/xenbus.c` fails without `script` and `handle`.
    #[test]
    fn linux_finds_what_its_back_end_cannot_do_without() {
        let spec: VifSpec = "type=kernel".parse().expect("a network card");
        let vif = Vif {
            spec: &spec,
            number: 3,
            server: Server::Kernel,
        };
        let back = "/local/domain/0/backend/vif/5/3";
        let changes = vif.creation(5, Uuid::nil());
        for (name, wanted) in [("script", ""), ("hotplug-status", ""), ("handle", "3")] {
            let path = format!("{back}/{name}");
            let node = tree::write(path, wanted.to_owned(), Access::GuestReads(5));
            assert!(changes.contains(&node), "{name}: {changes:?}");
        }
    }
}
