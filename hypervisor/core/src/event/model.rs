//! The channels against a model of them: any sequence of operations by a hypervisor and a guest.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::Ordering;

use oxen_abi::event_channel::{Virq, status};
use oxen_abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, VCPU_INFO_SIZE, vcpu_info};
use proptest::prelude::*;

use super::*;
use crate::guest_page::testing::leaked_page;

const VCPUS: u16 = 3;
const LIMIT: u32 = 70;
const OWN: DomainId = DomainId(1);

#[derive(Clone, Copy, Debug)]
enum Step {
    AllocUnbound { to_self: bool },
    BindIpi(u16),
    BindVirq(u32, u16),
    BindLoop(u32),
    BindVcpu(u32, u16),
    Close(u32),
    Send(u32),
    RaiseVirq(u32, u16),
    Unmask(u32),
    GuestMasks(u32),
    GuestLooks(u16),
    Registers(u16),
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly ports that are likely to be open, so that operations meet on them.
    let port = prop_oneof![8 => 1..8u32, 1 => 62..67u32, 1 => 0..LIMIT + 2];
    let vcpu = 0..=VCPUS;
    let virq = prop_oneof![Just(0u32), Just(1), Just(2), Just(3), Just(24)];
    prop_oneof![
        2 => any::<bool>().prop_map(|to_self| Step::AllocUnbound { to_self }),
        3 => vcpu.clone().prop_map(Step::BindIpi),
        2 => (virq.clone(), vcpu.clone()).prop_map(|(virq, vcpu)| Step::BindVirq(virq, vcpu)),
        2 => port.clone().prop_map(Step::BindLoop),
        2 => (port.clone(), vcpu.clone()).prop_map(|(port, vcpu)| Step::BindVcpu(port, vcpu)),
        2 => port.clone().prop_map(Step::Close),
        8 => port.clone().prop_map(Step::Send),
        2 => (virq, vcpu.clone()).prop_map(|(virq, vcpu)| Step::RaiseVirq(virq, vcpu)),
        2 => port.clone().prop_map(Step::Unmask),
        2 => port.prop_map(Step::GuestMasks),
        3 => vcpu.clone().prop_map(Step::GuestLooks),
        1 => vcpu.prop_map(Step::Registers),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Unbound(bool),
    Loop(u32),
    Virq(u32, u16),
    Ipi,
}

#[derive(Clone, Copy)]
struct ModelPort {
    end: End,
    vcpu: u16,
    pending: bool,
}

#[derive(Default)]
struct Told(StdMutex<Vec<u16>>);

impl Notify for Told {
    fn notify(&self, vcpu: VcpuId) {
        self.0.lock().expect("no test panics here").push(vcpu.0);
    }
}

struct World {
    events: EventChannels,
    shared: GuestPage,
    told: Told,
    ports: BTreeMap<u32, ModelPort>,
    registered: [bool; VCPUS as usize],
}

impl World {
    fn new() -> Self {
        let shared = leaked_page();
        Self {
            events: EventChannels::new(OWN, shared, VCPUS.into(), LIMIT)
                .expect("tests have memory"),
            shared,
            told: Told::default(),
            ports: BTreeMap::new(),
            registered: [false; VCPUS as usize],
        }
    }

    fn opens(&mut self, end: End, vcpu: u16) -> Result<Port, Errno> {
        let free = (1..LIMIT).find(|port| !self.ports.contains_key(port));
        let port = free.ok_or(Errno::NoSpc)?;
        let pending = false;
        self.ports.insert(port, ModelPort { end, vcpu, pending });
        Ok(Port(port))
    }

    fn becomes_pending(&mut self, port: u32) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.pending = true;
        }
    }

    fn info(&self, vcpu: u16) -> (GuestPage, usize) {
        let info = self.events.vcpu_info(VcpuId(vcpu)).expect("it exists");
        info.place().expect("all of these have one")
    }

    fn upcall(&self, vcpu: u16) -> bool {
        self.events.upcall_pending(VcpuId(vcpu))
    }

    fn vcpu_exists(vcpu: u16) -> Result<(), Errno> {
        if vcpu < VCPUS {
            Ok(())
        } else {
            Err(Errno::NoEnt)
        }
    }

    fn open(&self, port: u32) -> Result<ModelPort, Errno> {
        self.ports.get(&port).copied().ok_or(Errno::Inval)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::AllocUnbound { to_self } => {
                let remote = if to_self { OWN } else { DomainId(9) };
                let expected = self.opens(End::Unbound(to_self), 0);
                assert_eq!(self.events.alloc_unbound(remote), expected);
            }
            Step::BindIpi(vcpu) => {
                let expected = Self::vcpu_exists(vcpu).and_then(|()| self.opens(End::Ipi, vcpu));
                assert_eq!(self.events.bind_ipi(VcpuId(vcpu)), expected);
            }
            Step::BindVirq(virq, vcpu) => {
                let got = self.events.bind_virq(Virq(virq), VcpuId(vcpu));
                let end = End::Virq(virq, vcpu);
                let expected = if virq >= 24 || (virq > 1 && vcpu != 0) {
                    Err(Errno::Inval)
                } else if vcpu >= VCPUS {
                    Err(Errno::NoEnt)
                } else if self.ports.values().any(|port| port.end == end) {
                    Err(Errno::Exist)
                } else {
                    self.opens(end, vcpu)
                };
                assert_eq!(got, expected);
            }
            Step::BindLoop(far) => {
                let got = self
                    .events
                    .bind_interdomain(&self.events, Port(far), &self.told);
                let expected = self
                    .open(far)
                    .and_then(|port| match port.end {
                        End::Unbound(true) => Ok(()),
                        _ => Err(Errno::Inval),
                    })
                    .and_then(|()| self.opens(End::Loop(far), 0));
                if let Ok(port) = expected {
                    self.becomes_pending(port.0);
                    if let Some(far) = self.ports.get_mut(&far) {
                        far.end = End::Loop(port.0);
                    }
                }
                assert_eq!(got, expected);
            }
            Step::BindVcpu(port, vcpu) => {
                let got = self.events.bind_vcpu(Port(port), VcpuId(vcpu));
                let expected = Self::vcpu_exists(vcpu)
                    .and_then(|()| self.open(port))
                    .and_then(|port| match port.end {
                        End::Ipi | End::Virq(0..=1, _) => Err(Errno::Inval),
                        _ => Ok(()),
                    });
                if expected.is_ok()
                    && let Some(port) = self.ports.get_mut(&port)
                {
                    port.vcpu = vcpu;
                }
                assert_eq!(got, expected);
            }
            Step::Close(port) => {
                let got = self.events.close(Port(port));
                let closed = self.ports.remove(&port).ok_or(Errno::Inval);
                if let Ok(ModelPort {
                    end: End::Loop(far),
                    ..
                }) = closed
                    && let Some(far) = self.ports.get_mut(&far)
                {
                    far.end = End::Unbound(true);
                }
                assert_eq!(got, closed.map(|_| None));
            }
            Step::Send(port) => {
                let got = self.events.send(Port(port), &self.told);
                let expected = self.open(port).and_then(|model| match model.end {
                    End::Ipi => Ok(Some(port)),
                    End::Loop(far) => Ok(Some(far)),
                    End::Unbound(_) => Ok(None),
                    End::Virq(..) => Err(Errno::Inval),
                });
                if let Ok(Some(target)) = expected {
                    self.becomes_pending(target);
                }
                assert_eq!(got, expected.map(|_| None));
            }
            Step::RaiseVirq(virq, vcpu) => {
                self.events.raise_virq(VcpuId(vcpu), Virq(virq), &self.told);
                let end = End::Virq(virq, vcpu);
                let port = self.ports.iter().find(|(_, port)| port.end == end);
                if let Some(port) = port.map(|(&port, _)| port) {
                    self.becomes_pending(port);
                }
            }
            Step::Unmask(port) => {
                let got = self.events.unmask(Port(port), &self.told);
                assert_eq!(got, self.open(port).map(|_| ()));
            }
            Step::GuestMasks(port) => {
                self.shared
                    .u64(EVTCHN_MASK + 8 * (port as usize / 64))
                    .fetch_or(1 << (port % 64), Ordering::SeqCst);
            }
            Step::GuestLooks(vcpu) if vcpu < VCPUS => self.guest_looks(vcpu),
            Step::GuestLooks(_) => {}
            Step::Registers(vcpu) => {
                let at = (leaked_page(), 4096 - VCPU_INFO_SIZE);
                let got = self
                    .events
                    .register_vcpu_info(VcpuId(vcpu), at.0, at.1, &self.told);
                let expected = match self.registered.get_mut(usize::from(vcpu)) {
                    None => Err(Errno::NoEnt),
                    Some(true) => Err(Errno::Inval),
                    Some(first) => {
                        *first = true;
                        // It is told whether or not it knew.
                        self.told.0.lock().expect("no test panics here").clear();
                        Ok(())
                    }
                };
                assert_eq!(got, expected);
            }
        }
    }

    /// What Linux does in its upcall handler.
    fn guest_looks(&mut self, vcpu: u16) {
        let (page, offset) = self.info(vcpu);
        let upcall = page.u8(offset + vcpu_info::UPCALL_PENDING);
        if upcall.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let words = page
            .u64(offset + vcpu_info::PENDING_SEL)
            .swap(0, Ordering::SeqCst);
        for word in (0..64).filter(|word| words >> word & 1 != 0) {
            let mask = self
                .shared
                .u64(EVTCHN_MASK + 8 * word)
                .load(Ordering::SeqCst);
            let taken = self
                .shared
                .u64(EVTCHN_PENDING + 8 * word)
                .fetch_and(mask, Ordering::SeqCst)
                & !mask;
            for bit in (0..64).filter(|bit| taken >> bit & 1 != 0) {
                let port = word as u32 * 64 + bit;
                let model = self
                    .ports
                    .get_mut(&port)
                    .expect("only open ports are pending");
                assert!(
                    core::mem::take(&mut model.pending),
                    "port {port} was not sent to"
                );
            }
        }
    }

    fn check(&self, step: Step, upcalls_before: [bool; VCPUS as usize]) {
        for port in 0..LIMIT {
            let expected = self.ports.get(&port).is_some_and(|port| port.pending);
            assert_eq!(self.events.is_pending(Port(port)), expected, "{port}");
            let number = self.events.status(Port(port)).expect("a valid port").0;
            let expected = self.ports.get(&port).map_or(0, |port| match port.end {
                End::Unbound(_) => status::UNBOUND,
                End::Loop(_) => status::INTERDOMAIN,
                End::Virq(..) => status::VIRQ,
                End::Ipi => status::IPI,
            });
            assert_eq!(number, expected);
        }
        // An event that waits unmasked is never one that no vCPU will look for.
        for &port in self.ports.keys() {
            if self.events.is_pending(Port(port)) && !self.events.is_masked(Port(port)) {
                let found = (0..VCPUS).any(|vcpu| {
                    let (page, offset) = self.info(vcpu);
                    let words = page
                        .u64(offset + vcpu_info::PENDING_SEL)
                        .load(Ordering::SeqCst);
                    self.upcall(vcpu) && words >> (port / 64) & 1 != 0
                });
                assert!(found, "port {port} waits unseen");
            }
        }
        let mut told = core::mem::take(&mut *self.told.0.lock().expect("no test panics here"));
        told.sort_unstable();
        if !matches!(step, Step::GuestLooks(_) | Step::Registers(_)) {
            let rose: Vec<u16> = (0..VCPUS)
                .filter(|&vcpu| self.upcall(vcpu) && !upcalls_before[usize::from(vcpu)])
                .collect();
            assert_eq!(told, rose);
        }
    }
}

proptest! {
    #[test]
    fn channels_behave_as_their_model(opened in 0u16..LIMIT as u16, steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        let opening = (0..opened).map(|port| Step::BindIpi(port % VCPUS));
        for step in opening.chain(steps) {
            let before = [0, 1, 2].map(|vcpu| world.upcall(vcpu));
            world.apply(step);
            world.check(step, before);
        }
    }
}
