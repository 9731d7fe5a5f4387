//! The FIFO ABI against a model of it: any sequence of operations by a hypervisor and a guest.

use std::collections::{BTreeMap, VecDeque};

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo::{MASKED, PRIORITIES, WORDS_PER_PAGE};
use proptest::prelude::*;

use super::testing::{Guest, OWN};
use crate::id::{Port, VcpuId};

pub const VCPUS: u16 = 3;
/// Two pages of words and a part of a third.
const LIMIT: u32 = 2100;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    OpenPair,
    Close(u32),
    Send(u32),
    BindVcpu(u32, u16),
    SetPriority(u32, u32),
    Unmask(u32),
    GuestMasks(u32),
    GuestUnmasks(u32),
    GuestLooks(u16),
    InitControl(u16),
    Expand { masked: bool },
    Reset,
}

pub fn step() -> impl Strategy<Value = Step> {
    // Mostly few ports, so that operations meet on them, and some about the border of a page of words.
    let port = prop_oneof![8 => 1..9u32, 2 => 1021..1027u32, 1 => 0..LIMIT];
    let vcpu = 0..VCPUS;
    prop_oneof![
        3 => Just(Step::OpenPair),
        2 => port.clone().prop_map(Step::Close),
        12 => port.clone().prop_map(Step::Send),
        3 => (port.clone(), vcpu.clone()).prop_map(|(port, vcpu)| Step::BindVcpu(port, vcpu)),
        3 => (port.clone(), 0..18u32).prop_map(|(port, to)| Step::SetPriority(port, to)),
        1 => port.clone().prop_map(Step::Unmask),
        3 => port.clone().prop_map(Step::GuestMasks),
        5 => port.prop_map(Step::GuestUnmasks),
        5 => vcpu.clone().prop_map(Step::GuestLooks),
        3 => vcpu.prop_map(Step::InitControl),
        2 => any::<bool>().prop_map(|masked| Step::Expand { masked }),
        1 => prop_oneof![9 => Just(Step::Send(1)), 1 => Just(Step::Reset)],
    ]
}

/// An open port.
pub struct Channel {
    peer: Option<u32>,
    vcpu: u16,
    priority: usize,
}

/// What is true of a port whether it is open or not.
#[derive(Clone, Copy, Default)]
struct Word {
    pending: bool,
    masked: bool,
    queued: bool,
}

/// Queues are queues, and flags are flags.
#[derive(Default)]
pub struct Model {
    pub channels: BTreeMap<u32, Channel>,
    words: BTreeMap<u32, Word>,
    /// Ports that have words.
    covered: u32,
    controls: [bool; VCPUS as usize],
    queues: [[VecDeque<u32>; PRIORITIES]; VCPUS as usize],
}

impl Model {
    fn fifo(&self) -> bool {
        self.controls.contains(&true)
    }

    fn open(&mut self) -> u32 {
        let port = (1..LIMIT)
            .find(|port| !self.channels.contains_key(port))
            .expect("tests open fewer");
        let channel = Channel {
            peer: None,
            vcpu: 0,
            priority: 7,
        };
        self.channels.insert(port, channel);
        port
    }

    fn word(&mut self, port: u32) -> &mut Word {
        self.words.entry(port).or_default()
    }

    fn becomes_pending(&mut self, port: u32) {
        self.word(port).pending = true;
        self.queue(port);
    }

    /// Queues the port if it is due and can be.
    fn queue(&mut self, port: u32) {
        let Some(channel) = self.channels.get(&port) else {
            return;
        };
        let word = self.words.get(&port).copied().unwrap_or_default();
        let vcpu = usize::from(channel.vcpu);
        let can = port < self.covered && self.controls[vcpu];
        if can && word.pending && !word.masked && !word.queued {
            self.queues[vcpu][channel.priority].push_back(port);
            self.word(port).queued = true;
        }
    }

    fn queue_all(&mut self, ports: std::ops::Range<u32>) {
        ports.for_each(|port| self.queue(port));
    }

    fn has_work(&self, vcpu: u16) -> bool {
        let queues = &self.queues[usize::from(vcpu)];
        queues.iter().any(|queue| !queue.is_empty())
    }

    fn look(&mut self, vcpu: u16) -> Vec<(u32, bool)> {
        let queues = &mut self.queues[usize::from(vcpu)];
        let ports: Vec<u32> = queues.iter_mut().flat_map(std::mem::take).collect();
        let take = |port| {
            let word = self.words.entry(port).or_default();
            word.queued = false;
            let there = word.pending && !word.masked;
            word.pending &= !there;
            (port, there)
        };
        ports.into_iter().map(take).collect()
    }
}

pub struct World {
    pub guest: Guest,
    pub model: Model,
}

impl World {
    pub fn new() -> Self {
        Self {
            guest: Guest::new(VCPUS.into(), LIMIT),
            model: Model::default(),
        }
    }

    pub fn apply(&mut self, step: Step) {
        match step {
            Step::OpenPair => self.open_pair(),
            Step::Close(port) => self.close(port),
            Step::Send(port) => {
                let target = self.model.channels.get(&port).map(|channel| channel.peer);
                let got = self.guest.events.send(Port(port), &self.guest.told);
                assert_eq!(got, target.map(|_| None).ok_or(Errno::Inval));
                if let Some(Some(target)) = target {
                    self.model.becomes_pending(target);
                }
            }
            Step::BindVcpu(port, vcpu) => {
                let got = self.guest.events.bind_vcpu(Port(port), VcpuId(vcpu));
                let channel = self.model.channels.get_mut(&port).ok_or(Errno::Inval);
                assert_eq!(got, channel.map(|channel| channel.vcpu = vcpu));
            }
            Step::SetPriority(port, priority) => self.set_priority(port, priority),
            Step::Unmask(port) => {
                let got = self.guest.events.unmask(Port(port), &self.guest.told);
                let expected = self.model.channels.get(&port).ok_or(Errno::Inval);
                assert_eq!(got, expected.map(|_| ()));
                if got.is_ok() && port < self.model.covered {
                    self.model.word(port).masked = false;
                    self.model.queue(port);
                }
            }
            Step::GuestMasks(port) if port < self.model.covered => {
                self.guest.mask(port);
                self.model.word(port).masked = true;
            }
            Step::GuestUnmasks(port) if port < self.model.covered => {
                // Of a closed port there is nothing to be told.
                let _ = self.guest.unmask(port);
                self.model.word(port).masked = false;
                self.model.queue(port);
            }
            Step::GuestMasks(_) | Step::GuestUnmasks(_) => {}
            Step::GuestLooks(vcpu) => {
                assert_eq!(self.guest.look(vcpu), self.model.look(vcpu));
            }
            Step::InitControl(vcpu) => self.init_control(vcpu),
            Step::Expand { masked } => self.expand(masked),
            Step::Reset => {
                self.guest.reset();
                self.model = Model::default();
            }
        }
    }

    fn open_pair(&mut self) {
        let (guest, model) = (&self.guest, &mut self.model);
        let one = model.open();
        assert_eq!(guest.events.alloc_unbound(OWN), Ok(Port(one)));
        let other = model.open();
        let got = guest
            .events
            .bind_interdomain(&guest.events, Port(one), &guest.told);
        assert_eq!(got, Ok(Port(other)));
        for (port, peer) in [(one, other), (other, one)] {
            if let Some(channel) = model.channels.get_mut(&port) {
                channel.peer = Some(peer);
            }
        }
        model.becomes_pending(other);
    }

    fn close(&mut self, port: u32) {
        let got = self.guest.events.close(Port(port));
        let closed = self.model.channels.remove(&port).ok_or(Errno::Inval);
        if let Ok(channel) = &closed {
            self.model.word(port).pending = false;
            let peer = channel
                .peer
                .and_then(|peer| self.model.channels.get_mut(&peer));
            if let Some(peer) = peer {
                peer.peer = None;
            }
        }
        assert_eq!(got, closed.map(|_| None));
    }

    fn set_priority(&mut self, port: u32, priority: u32) {
        let got = self.guest.events.set_priority(Port(port), priority);
        let fifo = self.model.fifo();
        let expected = match self.model.channels.get_mut(&port) {
            None => Err(Errno::Inval),
            Some(_) if !fifo => Err(Errno::NoSys),
            Some(_) if priority > 15 => Err(Errno::Inval),
            Some(channel) => {
                channel.priority = priority as usize;
                Ok(())
            }
        };
        assert_eq!(got, expected);
    }

    fn init_control(&mut self, vcpu: u16) {
        let got = self.guest.init_control(vcpu);
        let control = &mut self.model.controls[usize::from(vcpu)];
        if std::mem::replace(control, true) {
            assert_eq!(got, Err(Errno::Inval));
        } else {
            assert_eq!(got, Ok(()));
            self.model.queue_all(0..LIMIT);
        }
    }

    fn expand(&mut self, masked: bool) {
        let got = self.guest.expand(if masked { MASKED } else { 0 });
        if !self.model.fifo() {
            assert_eq!(got, Err(Errno::OpNotSupp));
        } else if got == Ok(()) {
            let first = self.model.covered;
            self.model.covered += WORDS_PER_PAGE as u32;
            for port in first..self.model.covered {
                self.model.word(port).masked = masked;
            }
            self.model.queue_all(first..self.model.covered);
        } else {
            assert_eq!(got, Err(Errno::NoSpc));
        }
    }

    fn check(&mut self, before: [bool; VCPUS as usize], looked: bool) {
        for port in (0..10).chain(1020..1028) {
            let expected = self.model.word(port).pending;
            assert_eq!(self.guest.events.is_pending(Port(port)), expected, "{port}");
            let masked = if self.model.fifo() && port >= self.model.covered {
                true
            } else {
                self.model.word(port).masked
            };
            assert_eq!(self.guest.events.is_masked(Port(port)), masked, "{port}");
        }
        for vcpu in 0..VCPUS {
            assert!(self.guest.upcall(vcpu) || !self.model.has_work(vcpu));
        }
        let told = self.guest.told.take();
        if !looked {
            let rose =
                (0..VCPUS).filter(|&vcpu| self.guest.upcall(vcpu) && !before[usize::from(vcpu)]);
            let mut told: Vec<u16> = told.into_iter().map(|vcpu| vcpu.0).collect();
            told.sort_unstable();
            assert_eq!(told, rose.collect::<Vec<u16>>());
        }
    }
}

fn upcalls(world: &World) -> [bool; VCPUS as usize] {
    [0, 1, 2].map(|vcpu| world.guest.upcall(vcpu))
}

/// Pairs of ports to begin with: few, or about as many as fill a page of words.
fn opened() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..6usize, 1 => 508..514usize]
}

proptest! {
    #[test]
    fn queues_behave_as_their_model(opened in opened(), steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for _ in 0..opened {
            world.apply(Step::OpenPair);
        }
        world.guest.told.take();
        for step in steps {
            let before = upcalls(&world);
            world.apply(step);
            world.check(before, matches!(step, Step::GuestLooks(_)));
        }
    }
}
