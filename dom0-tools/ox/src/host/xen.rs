//! The hypervisor, through `oxen-xen` and `oxen-builder`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use oxen_builder::{BuildError, Config, Guest, Xen};
use oxen_config::cpulist::MAX_CPU;
use oxen_config::{DomainConfig, HostCpus};
use oxen_xen::cpu_map::CpuMap;
use oxen_xen::domain::{
    self, Affinity, CreateDomain, Credit2, DomainFlags, DomainInfo, ShutdownReason,
};
use oxen_xen::privcmd::Privcmd;
use oxen_xen::{grant, host};
use uuid::Uuid;

use super::core_file;
use super::{Built, DomainState, Hypervisor, Limits, MachineInfo, Share, VcpuState, Version};
use crate::failure::Failure;
use crate::settings;

const KIB_PER_PAGE: u64 = 4;
/// Bytes of the hypervisor's log that are asked for at first.
const FIRST_LOG: u32 = 256 << 10;
/// More than any log ring holds.
const LONGEST_LOG: u32 = 16 << 20;

/// The hypervisor of this machine.
pub struct Real {
    privcmd: Privcmd,
}

impl Real {
    /// Opens the device.
    pub fn open() -> Result<Self, Failure> {
        let privcmd = Privcmd::open().map_err(|error| Failure::Unreachable {
            what: "the hypervisor",
            error: error.to_string(),
        })?;
        Ok(Self { privcmd })
    }
}

impl Hypervisor for Real {
    fn version(&mut self) -> io::Result<Version> {
        let version = host::version(&self.privcmd)?;
        Ok(Version {
            major: version.major,
            minor: version.minor,
            extra: version.extra,
            capabilities: version.capabilities,
            changeset: version.changeset,
            command_line: version.command_line,
            compile: version.compile,
        })
    }

    fn machine(&mut self) -> io::Result<MachineInfo> {
        // XEN_SYSCTL_PHYSCAP_*, in the words of `xl info`.
        const CAPABILITIES: &[(u32, &str)] = &[
            (0, "hvm"),
            (1, "pv"),
            (2, "hvm_directio"),
            (3, "hap"),
            (4, "shadow"),
            (5, "iommu_hap_pt_share"),
            (6, "vmtrace"),
            (7, "vpmu"),
            (8, "gnttab-v1"),
            (9, "gnttab-v2"),
        ];
        let info = host::physinfo(&self.privcmd)?;
        let words = CAPABILITIES
            .iter()
            .filter(|(bit, _)| info.capabilities >> bit & 1 != 0);
        let words: Vec<_> = words.map(|(_, word)| *word).collect();
        Ok(MachineInfo {
            cpus: info.cpus,
            max_cpu_id: info.max_cpu_id,
            nodes: info.nodes,
            cores_per_socket: info.cores_per_socket,
            threads_per_core: info.threads_per_core,
            cpu_khz: info.cpu_khz,
            total_kib: info.total_pages.saturating_mul(KIB_PER_PAGE),
            free_kib: info
                .free_pages
                .saturating_add(info.scrub_pages)
                .saturating_mul(KIB_PER_PAGE),
            scrub_kib: info.scrub_pages.saturating_mul(KIB_PER_PAGE),
            claimed_kib: info.outstanding_pages.saturating_mul(KIB_PER_PAGE),
            virt_caps: words.join(" "),
        })
    }

    fn cpus(&mut self) -> io::Result<HostCpus> {
        let info = host::physinfo(&self.privcmd)?;
        let count = info.max_cpu_id.saturating_add(1).min(MAX_CPU);
        match host::cpu_topology(&self.privcmd, count) {
            Ok(topology) => Ok(HostCpus {
                nodes: topology.into_iter().map(|cpu| cpu.node).collect(),
            }),
            // A machine of one node has no topology that matters here.
            Err(_) if info.nodes <= 1 => Ok(HostCpus::one_node(count)),
            Err(error) => Err(error),
        }
    }

    fn domains(&mut self) -> io::Result<Vec<DomainState>> {
        Ok(domain::list(&self.privcmd)?
            .into_iter()
            .map(state)
            .collect())
    }

    fn domain(&mut self, domid: u16) -> io::Result<Option<DomainState>> {
        Ok(domain::info(&self.privcmd, domid)?.map(state))
    }

    fn build(&mut self, config: &DomainConfig, uuid: Uuid) -> Result<Built, Failure> {
        let config = Config {
            name: config.name.clone(),
            domain: CreateDomain {
                uuid: uuid.into_bytes(),
                vcpus: config.maxvcpus,
                max_event_port: Some(config.max_event_channels),
                max_grant_frames: config.max_grant_frames,
                max_maptrack_frames: config.max_maptrack_frames,
                grant_version: config
                    .max_grant_version
                    .unwrap_or(CreateDomain::default().grant_version),
                ..CreateDomain::default()
            },
            kernel: config.kernel.clone(),
            ramdisk: config.ramdisk.clone(),
            cmdline: config.cmdline.clone(),
            memory_mib: config.memory_mib,
            max_memory_mib: Some(config.maxmem_mib),
        };
        let name = config.name.clone();
        let cache = settings::kernel_cache()?;
        let built = Guest::load(&config, cache.as_ref())
            .and_then(|guest| guest.build(&Xen::new(&self.privcmd)))
            .map_err(|error| build_failure(&name, &error))?;
        Ok(Built {
            domid: built.domid,
            console_gfn: built.console.gfn,
            console_port: built.console.port,
            store_gfn: built.store.gfn,
            store_port: built.store.port,
        })
    }

    fn destroy(&mut self, domid: u16) -> io::Result<()> {
        domain::destroy(&self.privcmd, domid)
    }

    fn set_uuid(&mut self, domid: u16, uuid: Uuid) -> io::Result<()> {
        domain::set_uuid(&self.privcmd, domid, uuid.into_bytes())
    }

    fn dump_core(&mut self, domid: u16, file: &Path) -> io::Result<()> {
        core_file::write(&self.privcmd, domid, file)
    }

    fn pause(&mut self, domid: u16) -> io::Result<()> {
        domain::pause(&self.privcmd, domid)
    }

    fn unpause(&mut self, domid: u16) -> io::Result<()> {
        domain::unpause(&self.privcmd, domid)
    }

    fn set_max_memory(&mut self, domid: u16, kib: u64) -> io::Result<()> {
        domain::set_max_memory(&self.privcmd, domid, kib)
    }

    fn vcpu(&mut self, domid: u16, vcpu: u32) -> io::Result<VcpuState> {
        let info = domain::vcpu_info(&self.privcmd, domid, vcpu)?;
        Ok(VcpuState {
            online: info.online,
            blocked: info.blocked,
            running: info.running,
            cpu_time_ns: info.cpu_time_ns,
            cpu: info.cpu,
        })
    }

    fn affinity(&mut self, domid: u16, vcpu: u32) -> io::Result<(BTreeSet<u32>, BTreeSet<u32>)> {
        let cpus = host::physinfo(&self.privcmd)?.max_cpu_id.saturating_add(1);
        let affinity = domain::vcpu_affinity(&self.privcmd, domid, vcpu, cpus)?;
        // A map has bits for whole bytes, and the hypervisor may set those beyond its CPUs.
        let set = |map: Option<CpuMap>| {
            let map = map.unwrap_or_default();
            map.iter().filter(|cpu| *cpu < cpus).collect()
        };
        Ok((set(affinity.hard), set(affinity.soft)))
    }

    fn set_affinity(
        &mut self,
        domid: u16,
        vcpu: u32,
        hard: Option<&BTreeSet<u32>>,
        soft: Option<&BTreeSet<u32>>,
    ) -> io::Result<()> {
        let map = |set: Option<&BTreeSet<u32>>| set.map(|set| set.iter().copied().collect());
        let affinity = Affinity {
            hard: map(hard),
            soft: map(soft),
        };
        if affinity.hard.is_none() && affinity.soft.is_none() {
            return Ok(());
        }
        domain::set_vcpu_affinity(&self.privcmd, domid, vcpu, &affinity).map(|_| ())
    }

    fn share(&mut self, domid: u16) -> io::Result<Share> {
        let share = domain::credit2(&self.privcmd, domid)?;
        Ok(Share {
            weight: share.weight,
            cap: share.cap,
        })
    }

    fn set_share(&mut self, domid: u16, share: Share) -> io::Result<()> {
        let share = Credit2 {
            weight: share.weight,
            cap: share.cap,
        };
        domain::set_credit2(&self.privcmd, domid, share)
    }

    fn rate_limit(&mut self) -> io::Result<u32> {
        host::rate_limit(&self.privcmd)
    }

    fn set_rate_limit(&mut self, micros: u32) -> io::Result<()> {
        host::set_rate_limit(&self.privcmd, micros)
    }

    fn limits(&mut self, domid: u16) -> io::Result<Limits> {
        let (grant_frames, max_grant_frames) = grant::size(&self.privcmd, domid)?;
        Ok(Limits {
            grant_frames,
            max_grant_frames,
            max_tables_kib: domain::paging_memory(&self.privcmd, domid)? / 1024,
        })
    }

    fn debug_keys(&mut self, keys: &str) -> io::Result<()> {
        host::debug_keys(&self.privcmd, keys.as_bytes())
    }

    fn log(&mut self) -> io::Result<Vec<u8>> {
        let mut size = FIRST_LOG;
        loop {
            let text = host::read_console(&self.privcmd, size, None, false)?.text;
            // A full buffer may have cut the newest lines off.
            if text.len() < size as usize || size >= LONGEST_LOG {
                return Ok(text);
            }
            size *= 4;
        }
    }

    fn clear_log(&mut self) -> io::Result<()> {
        const ENOSYS: i32 = 38;
        let begin = |text: Vec<u8>| text.into_iter().take(256).collect::<Vec<_>>();
        let before = begin(host::read_console(&self.privcmd, FIRST_LOG, None, true)?.text);
        let after = begin(host::read_console(&self.privcmd, FIRST_LOG, None, false)?.text);
        // A hypervisor that only has a ring takes the wish and does nothing.
        if !before.is_empty() && after == before {
            return Err(io::Error::from_raw_os_error(ENOSYS));
        }
        Ok(())
    }

    fn trigger(&mut self, domid: u16, trigger: u32, vcpu: u32) -> io::Result<()> {
        domain::send_trigger(&self.privcmd, domid, trigger, vcpu)
    }
}

/// What is wrong with the configuration has another exit code than what the hypervisor refuses.
fn build_failure(name: &str, error: &BuildError) -> Failure {
    const REFUSED: u8 = 1;
    const WRONG: u8 = 3;
    let (key, code) = match error {
        BuildError::Step { .. } => {
            return Failure::Refused {
                action: format!("build {name}"),
                error: error.to_string(),
            };
        }
        BuildError::OutOfMemory { .. } => ("memory", REFUSED),
        BuildError::TooSmall { .. } => ("memory", WRONG),
        BuildError::Kernel { .. } | BuildError::Misplaced { .. } => ("kernel", WRONG),
        _ => return Failure::ConfigUse(format!("{name}: {error}")),
    };
    Failure::Setting {
        key,
        message: error.to_string(),
        code,
    }
}

fn state(info: DomainInfo) -> DomainState {
    let is = |flag| info.flags.contains(flag);
    DomainState {
        domid: info.domid,
        uuid: Uuid::from_bytes(info.uuid),
        dying: is(DomainFlags::DYING),
        shutdown: info.shutdown_reason.map(|reason| match reason {
            ShutdownReason::PowerOff => "poweroff",
            ShutdownReason::Reboot => "reboot",
            ShutdownReason::Suspend => "suspend",
            ShutdownReason::Crash => "crash",
            ShutdownReason::Watchdog => "watchdog",
            ShutdownReason::SoftReset => "soft-reset",
            ShutdownReason::Unknown(_) => "unknown",
        }),
        paused: is(DomainFlags::PAUSED),
        blocked: is(DomainFlags::BLOCKED),
        running: is(DomainFlags::RUNNING),
        memory_kib: info.total_pages.saturating_mul(KIB_PER_PAGE),
        max_memory_kib: info.max_pages.saturating_mul(KIB_PER_PAGE),
        vcpus_online: info.online_vcpus,
        vcpus: info.max_vcpu_id.map_or(0, |last| last.saturating_add(1)),
        cpu_time_ns: info.cpu_time_ns,
    }
}
