//! The hypervisor of the host that is not there.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use oxen_config::{DomainConfig, HostCpus};
use uuid::Uuid;

use super::{Affinity, CPUS, Fake, state};
use crate::failure::Failure;
use crate::host::{Built, DomainState, Hypervisor, Limits, MachineInfo, Share, VcpuState, Version};

impl Hypervisor for Fake {
    fn version(&mut self) -> io::Result<Version> {
        Ok(Version {
            major: 4,
            minor: 17,
            extra: ".5".to_owned(),
            ..Version::default()
        })
    }

    fn machine(&mut self) -> io::Result<MachineInfo> {
        Ok(MachineInfo {
            cpus: CPUS,
            free_kib: 1 << 20,
            scrub_kib: 0,
            cpu_khz: 2_400_056,
            ..MachineInfo::default()
        })
    }

    fn cpus(&mut self) -> io::Result<HostCpus> {
        Ok(HostCpus::one_node(CPUS))
    }

    fn domains(&mut self) -> io::Result<Vec<DomainState>> {
        Ok(self.0.borrow().domains.clone())
    }

    fn domain(&mut self, domid: u16) -> io::Result<Option<DomainState>> {
        Ok(self.0.borrow_mut().find(domid).ok().cloned())
    }

    fn build(&mut self, config: &DomainConfig, uuid: Uuid) -> Result<Built, Failure> {
        let mut world = self.0.borrow_mut();
        world
            .call("build", config.name.clone())
            .map_err(Failure::Output)?;
        let domid = 1 + world.domains.last().map_or(0, |last| last.domid);
        let mut domain = state(domid, uuid, config.maxvcpus, config.memory_mib * 1024);
        domain.paused = true;
        world.domains.push(domain);
        if let Some(action) = world.at_build {
            action(&mut world);
        }
        Ok(Built {
            domid,
            console_gfn: 0xFEFFF,
            console_port: 2,
            store_gfn: 0xFEFFC,
            store_port: 1,
        })
    }

    fn destroy(&mut self, domid: u16) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.call("destroy", domid.to_string())?;
        world.find(domid)?;
        world.domains.retain(|domain| domain.domid != domid);
        world.shares.remove(&domid);
        world.affinities.retain(|(owner, _), _| *owner != domid);
        Ok(())
    }

    fn set_uuid(&mut self, domid: u16, uuid: Uuid) -> io::Result<()> {
        self.0.borrow_mut().call("uuid", domid.to_string())?;
        self.0.borrow_mut().find(domid)?.uuid = uuid;
        Ok(())
    }

    fn dump_core(&mut self, domid: u16, file: &Path) -> io::Result<()> {
        let about = format!("{domid} {}", file.display());
        self.0.borrow_mut().call("dump", about)
    }

    fn pause(&mut self, domid: u16) -> io::Result<()> {
        self.0.borrow_mut().call("pause", domid.to_string())?;
        self.0.borrow_mut().find(domid)?.paused = true;
        Ok(())
    }

    fn unpause(&mut self, domid: u16) -> io::Result<()> {
        self.0.borrow_mut().call("unpause", domid.to_string())?;
        self.0.borrow_mut().find(domid)?.paused = false;
        Ok(())
    }

    fn set_max_memory(&mut self, domid: u16, kib: u64) -> io::Result<()> {
        self.0.borrow_mut().call("max-memory", domid.to_string())?;
        self.0.borrow_mut().find(domid)?.max_memory_kib = kib;
        Ok(())
    }

    fn vcpu(&mut self, domid: u16, vcpu: u32) -> io::Result<VcpuState> {
        self.0.borrow_mut().find(domid)?;
        Ok(VcpuState {
            online: true,
            blocked: true,
            running: false,
            cpu_time_ns: 1_500_000_000,
            cpu: vcpu % CPUS,
        })
    }

    fn affinity(&mut self, domid: u16, vcpu: u32) -> io::Result<Affinity> {
        let all: BTreeSet<_> = (0..CPUS).collect();
        let found = self.0.borrow().affinities.get(&(domid, vcpu)).cloned();
        Ok(found.unwrap_or((all.clone(), all)))
    }

    fn set_affinity(
        &mut self,
        domid: u16,
        vcpu: u32,
        hard: Option<&BTreeSet<u32>>,
        soft: Option<&BTreeSet<u32>>,
    ) -> io::Result<()> {
        self.0
            .borrow_mut()
            .call("affinity", format!("{domid} {vcpu}"))?;
        let before = self.affinity(domid, vcpu)?;
        let after = (
            hard.cloned().unwrap_or(before.0),
            soft.cloned().unwrap_or(before.1),
        );
        self.0.borrow_mut().affinities.insert((domid, vcpu), after);
        Ok(())
    }

    fn share(&mut self, domid: u16) -> io::Result<Share> {
        let found = self.0.borrow().shares.get(&domid).copied();
        found.ok_or_else(|| io::Error::other("ESRCH"))
    }

    fn set_share(&mut self, domid: u16, share: Share) -> io::Result<()> {
        self.0.borrow_mut().call("share", domid.to_string())?;
        self.0.borrow_mut().shares.insert(domid, share);
        Ok(())
    }

    fn rate_limit(&mut self) -> io::Result<u32> {
        Ok(self.0.borrow().rate_limit)
    }

    fn set_rate_limit(&mut self, micros: u32) -> io::Result<()> {
        self.0.borrow_mut().rate_limit = micros;
        Ok(())
    }

    fn limits(&mut self, domid: u16) -> io::Result<Limits> {
        self.0.borrow_mut().find(domid)?;
        Ok(Limits {
            grant_frames: 1,
            max_grant_frames: 64,
            max_tables_kib: 4096,
        })
    }

    fn debug_keys(&mut self, keys: &str) -> io::Result<()> {
        self.0.borrow_mut().call("keys", keys.to_owned())
    }

    fn log(&mut self) -> io::Result<Vec<u8>> {
        Ok(b"(XEN) one\r\n(d1) \x1b[2J two".to_vec())
    }

    fn clear_log(&mut self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(38))
    }

    fn trigger(&mut self, domid: u16, trigger: u32, vcpu: u32) -> io::Result<()> {
        self.0
            .borrow_mut()
            .call("trigger", format!("{domid} {trigger} {vcpu}"))
    }
}
