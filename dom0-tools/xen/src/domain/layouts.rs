//! Operands of the domctls in use (`public/domctl.h`).

use crate::control::Bitmap;
use crate::layout;

/// `xen_domctl_createdomain`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Create {
    pub ssid: u32,
    pub handle: [u8; 16],
    pub flags: u32,
    pub iommu: u32,
    pub max_vcpus: u32,
    pub max_event_port: u32,
    pub max_grant_frames: i32,
    pub max_maptrack_frames: i32,
    pub grant: u32,
    pub vmtrace_size: u32,
    pub cpupool: u32,
    pub emulation: u32,
    pub misc: u32,
}
layout!(
    Create,
    64,
    handle = 4,
    flags = 20,
    max_vcpus = 28,
    grant = 44,
    emulation = 56
);

/// `xen_domctl_getdomaininfo`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Info {
    pub domain: u16,
    pub pad1: u16,
    pub flags: u32,
    pub total_pages: u64,
    pub max_pages: u64,
    pub outstanding_pages: u64,
    pub shared_pages: u64,
    pub paged_pages: u64,
    pub shared_info_frame: u64,
    pub cpu_time: u64,
    pub online_vcpus: u32,
    pub max_vcpu_id: u32,
    pub ssid: u32,
    pub handle: [u8; 16],
    pub cpupool: u32,
    pub address_bits: u8,
    pub pad2: [u8; 7],
    pub emulation: u32,
    pub misc: u32,
}
layout!(
    Info,
    112,
    flags = 4,
    total_pages = 8,
    cpu_time = 56,
    handle = 76,
    cpupool = 92,
    emulation = 104
);

/// `xen_domctl_vcpuaffinity`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Affinity {
    pub vcpu: u32,
    pub flags: u32,
    pub hard: Bitmap,
    pub soft: Bitmap,
}
layout!(Affinity, 40, hard = 8, soft = 24);

/// `xen_domctl_getvcpuinfo`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Vcpu {
    pub vcpu: u32,
    pub online: u8,
    pub blocked: u8,
    pub running: u8,
    pub pad: u8,
    pub cpu_time: u64,
    pub cpu: u32,
    pub pad2: u32,
}
layout!(Vcpu, 24, online = 4, cpu_time = 8, cpu = 16);

/// `xen_domctl_hvmcontext`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HvmContext {
    pub size: u32,
    pub pad: u32,
    pub buffer: u64,
}
layout!(HvmContext, 16, buffer = 8);

/// `xen_domctl_scheduler_op` with the credit2 arm.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Scheduler {
    pub scheduler: u32,
    pub cmd: u32,
    pub weight: u16,
    pub cap: u16,
    pub pad: [u32; 3],
}
layout!(Scheduler, 24, cmd = 4, weight = 8, cap = 10);

/// `xen_domctl_sendtrigger`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Trigger {
    pub trigger: u32,
    pub vcpu: u32,
}
layout!(Trigger, 8, vcpu = 4);

/// `sched_remote_shutdown`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RemoteShutdown {
    pub domain: u16,
    pub pad: u16,
    pub reason: u32,
}
layout!(RemoteShutdown, 8, reason = 4);

/// `xen_sysctl_getdomaininfolist`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InfoList {
    pub first: u16,
    pub pad: u16,
    pub max: u32,
    pub buffer: u64,
    pub count: u32,
    pub pad2: u32,
}
layout!(InfoList, 24, max = 4, buffer = 8, count = 16);

/// `xen_domctl_hvmcontext_partial`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HvmContextPartial {
    pub kind: u32,
    pub instance: u32,
    pub size: u64,
    pub buffer: u64,
}
layout!(HvmContextPartial, 24, instance = 4, size = 8, buffer = 16);

/// `xen_domctl_vcpucontext`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct VcpuContext {
    pub vcpu: u32,
    pub pad: u32,
    pub buffer: u64,
}
layout!(VcpuContext, 16, buffer = 8);
