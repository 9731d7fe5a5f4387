//! What the hypervisor tells about domains.

use std::io;

use super::layouts::{Info, InfoList};
use crate::control::{domctl, sysctl};
use crate::privcmd::Privcmd;

const GET_INFO: u32 = 5;
const SYSCTL_GET_INFO_LIST: u32 = 6;
/// Domains asked for at a time.
const BATCH: usize = 64;

bitflags::bitflags! {
    /// State of a domain (`XEN_DOMINF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DomainFlags: u32 {
        /// Being destroyed.
        const DYING = 1;
        /// Hardware-assisted: PVH or HVM.
        const HVM = 1 << 1;
        /// Has shut down, see [`DomainInfo::shutdown_reason`].
        const SHUTDOWN = 1 << 2;
        /// Paused by a tool.
        const PAUSED = 1 << 3;
        /// All its vCPUs wait.
        const BLOCKED = 1 << 4;
        /// One of its vCPUs runs at this moment.
        const RUNNING = 1 << 5;
        /// A debugger is attached.
        const DEBUGGED = 1 << 6;
        /// It is a xenstore domain.
        const XENSTORE = 1 << 7;
        /// Under nested paging.
        const HAP = 1 << 8;
    }
}

/// Why a domain shut down (`SHUTDOWN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reboot.
    Reboot,
    /// It is suspended.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog timed out.
    Watchdog,
    /// It asked for a restart with its memory kept.
    SoftReset,
    /// A number without a name.
    Unknown(u8),
}

impl ShutdownReason {
    /// By its number.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::PowerOff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            other => Self::Unknown(other),
        }
    }

    /// Its number.
    pub const fn code(self) -> u32 {
        match self {
            Self::PowerOff => 0,
            Self::Reboot => 1,
            Self::Suspend => 2,
            Self::Crash => 3,
            Self::Watchdog => 4,
            Self::SoftReset => 5,
            Self::Unknown(code) => code as u32,
        }
    }
}

/// A domain as the hypervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Number.
    pub domid: u16,
    /// State.
    pub flags: DomainFlags,
    /// Why it shut down, if it did.
    pub shutdown_reason: Option<ShutdownReason>,
    /// Pages that it has.
    pub total_pages: u64,
    /// Pages that it may have.
    pub max_pages: u64,
    /// Pages claimed for it and not given yet.
    pub claimed_pages: u64,
    /// Time its vCPUs ran, all together, in nanoseconds.
    pub cpu_time_ns: u64,
    /// vCPUs that are up.
    pub online_vcpus: u32,
    /// Highest number of its vCPUs, or `None` while there are none.
    pub max_vcpu_id: Option<u32>,
    /// UUID.
    pub uuid: [u8; 16],
    /// CPU pool.
    pub cpupool: u32,
}

impl From<Info> for DomainInfo {
    fn from(info: Info) -> Self {
        let flags = DomainFlags::from_bits_truncate(info.flags);
        let [_, _, reason, _] = info.flags.to_le_bytes();
        Self {
            domid: info.domain,
            flags,
            shutdown_reason: flags
                .contains(DomainFlags::SHUTDOWN)
                .then(|| ShutdownReason::from_code(reason)),
            total_pages: info.total_pages,
            max_pages: info.max_pages,
            claimed_pages: info.outstanding_pages,
            cpu_time_ns: info.cpu_time,
            online_vcpus: info.online_vcpus,
            max_vcpu_id: (info.max_vcpu_id != u32::MAX).then_some(info.max_vcpu_id),
            uuid: info.handle,
            cpupool: info.cpupool,
        }
    }
}

/// One domain, or `None` if there is no such.
///
/// # Errors
/// The hypervisor's errno.
pub fn info(xen: &Privcmd, domid: u16) -> io::Result<Option<DomainInfo>> {
    match domctl(xen, GET_INFO, domid, Info::default()) {
        // The hypervisor answers with the first domain from `domid` on.
        Ok((_, info)) => Ok((info.domain == domid).then(|| info.into())),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All domains, dom0 first, in ascending order. Domains that come or go meanwhile may be in it or not.
///
/// # Errors
/// The hypervisor's errno.
pub fn list(xen: &Privcmd) -> io::Result<Vec<DomainInfo>> {
    let buffer = xen.buffer(BATCH * size_of::<Info>())?;
    let mut domains = Vec::new();
    let mut first = 0;
    loop {
        let operation = InfoList {
            first,
            max: BATCH as u32,
            buffer: buffer.address(),
            ..InfoList::default()
        };
        let count = sysctl(xen, SYSCTL_GET_INFO_LIST, operation)?.count as usize;
        let count = count.min(BATCH);
        domains.extend(
            (0..count).map(|i| DomainInfo::from(buffer.read::<Info>(i * size_of::<Info>()))),
        );
        match domains.last() {
            Some(last) if count == BATCH => first = last.domid.saturating_add(1),
            _ => return Ok(domains),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_reason_counts_only_once_shut_down() {
        let running = DomainInfo::from(Info {
            flags: 0x0003_0122,
            max_vcpu_id: 1,
            ..Info::default()
        });
        assert_eq!(running.shutdown_reason, None);
        assert_eq!(running.max_vcpu_id, Some(1));
        let crashed = DomainInfo::from(Info {
            flags: 0x0003_0106,
            max_vcpu_id: u32::MAX,
            ..Info::default()
        });
        assert_eq!(crashed.shutdown_reason, Some(ShutdownReason::Crash));
        assert_eq!(crashed.max_vcpu_id, None);
    }

    #[test]
    fn reasons_keep_their_number() {
        for code in 0..=u8::MAX {
            assert_eq!(ShutdownReason::from_code(code).code(), u32::from(code));
        }
    }
}
