//! What can be typed.

mod arguments;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use arguments::*;

use crate::failure::EXIT_CODES;

const EXAMPLES: &str = "\
Examples:
  ox create -c /etc/oxen/demo.cfg           create a domain and watch it boot (Ctrl-] detaches)
  ox create web.cfg name=web2 memory=512    the same file with other settings
  ox config check web.cfg                   what is wrong with a file
  ox list                                   all domains
  ox list --json                            the same for programs
  ox vcpu-pin demo all 0-1,^0               run its vCPUs on CPU 1 only
  ox shutdown -w demo                       ask it to power off and wait until it has
  ox destroy demo                           take its power away";

const FILES: &str = "\
Files:
  /etc/oxen/ox.conf              how ox works: kernel_cache, kernel_cache_mib
  /var/cache/oxen/kernels        unpacked kernels, kept for the next `ox create`
  /run/oxen/domains              what each domain was made from
  /var/log/xen/supervisor.log    what became of domains that stopped";

/// Creates, shows and controls the domains of this machine.
#[derive(Debug, Parser)]
#[command(name = "ox", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{FILES}"))]
pub struct Cli {
    /// Say more about what is done
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// The verb
    #[command(subcommand)]
    pub command: Command,
}

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a domain from a configuration file
    #[command(after_help = "\
Examples:
  ox create /etc/oxen/demo.cfg -c
  ox create demo.cfg name=demo2 'extra=console=hvc0 quiet'
  ox create --dry-run demo.cfg      check the file and print what it means as JSON")]
    Create(Create),
    /// List domains: name, number, memory, vCPUs, state and CPU time
    #[command(after_help = "\
State: r running, b blocked, p paused, s shut down, c crashed, d being destroyed.
Domains that wait to be started again stand at the end and have no ID.
With -l: Grants are frames of its grant table, those it has and those it may have. Limits of
event channels are in Ports, of frames for mapped grants in Maptrack, of memory for the tables
of its guest-physical map in TableKiB.
Examples:
  ox list -l                     all that there is to know
  ox list --json | jq '.[].name'")]
    List(List),
    /// Show the hypervisor's version, the machine's CPUs and memory
    #[command(after_help = "Examples:\n  ox info\n  ox info --json | jq -r .free_memory")]
    Info(Json),
    /// Attach to the console of a domain; Ctrl-] detaches
    #[command(after_help = "Example:\n  ox console demo")]
    Console(Domain),
    /// Destroy a domain at once, as if its power were cut
    #[command(after_help = "Example:\n  ox destroy demo")]
    Destroy(Domain),
    /// Ask a domain to power off
    #[command(
        after_help = "Examples:\n  ox shutdown demo             ask only\n  ox shutdown -ww demo         and wait until it is gone\n  ox shutdown -a -w --timeout 120"
    )]
    Shutdown(Stop),
    /// Ask a domain to reboot
    #[command(
        after_help = "Example:\n  ox reboot -ww demo           and wait until it is started again"
    )]
    Reboot(Stop),
    /// Stop the vCPUs of a domain
    #[command(after_help = "Example:\n  ox pause demo")]
    Pause(Domain),
    /// Let a paused domain run on
    #[command(after_help = "Example:\n  ox unpause demo")]
    Unpause(Domain),
    /// Give a domain another name
    #[command(after_help = "Example:\n  ox rename demo web1")]
    Rename {
        /// Name or number
        domain: String,
        /// The new name
        new_name: String,
    },
    /// Print the number of a domain
    #[command(after_help = "Example:\n  ox domid demo")]
    Domid {
        /// Name
        domain: String,
    },
    /// Print the name of a domain
    #[command(after_help = "Example:\n  ox domname 3")]
    Domname {
        /// Number
        domain: String,
    },
    /// List vCPUs: state, CPU, time and affinity
    #[command(after_help = "Examples:\n  ox vcpu-list demo\n  ox vcpu-list --json")]
    VcpuList {
        /// Names or numbers; all domains if none
        domains: Vec<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Set on which CPUs vCPUs may and should run
    #[command(after_help = "\
Lists: all, N, N-M, nodes:N; ^ in front leaves out; - leaves as it is.
Examples:
  ox vcpu-pin demo 0 2-3        vCPU 0 may run on CPUs 2 and 3
  ox vcpu-pin demo all - 0-1    all vCPUs prefer CPUs 0 and 1")]
    VcpuPin {
        /// Name or number
        domain: String,
        /// Number of the vCPU, or "all"
        vcpu: String,
        /// CPUs that it may run on
        hard: String,
        /// CPUs that it should run on
        #[arg(default_value = "-", allow_hyphen_values = true)]
        soft: String,
    },
    /// Set how many vCPUs are online; the guest brings them up or down
    #[command(after_help = "Example:\n  ox vcpu-set demo 2")]
    VcpuSet {
        /// Name or number
        domain: String,
        /// vCPUs
        vcpus: u32,
    },
    /// Show or set weight and cap of domains, or the scheduler's own parameter
    #[command(
        name = "sched-credit2",
        after_help = "Examples:\n  ox sched-credit2\n  ox sched-credit2 -d demo -w 512 -c 50\n  ox sched-credit2 -s -r 1000"
    )]
    SchedCredit2(Share),
    /// Set how much memory the guest's balloon driver shall keep
    #[command(after_help = "Example:\n  ox mem-set demo 512m")]
    MemSet(Memory),
    /// Set how much memory a domain may have at most
    #[command(after_help = "Example:\n  ox mem-max demo 1g")]
    MemMax(Memory),
    /// Give a running domain a disk
    #[command(after_help = "\
Examples:
  ox block-attach demo /srv/data.img,raw,xvdb,rw
  ox block-attach demo format=raw vdev=xvdb access=ro backendtype=kernel target=/dev/vg/data")]
    BlockAttach {
        /// Name or number
        domain: String,
        /// The disk, as in the configuration's disk=
        #[arg(required = true)]
        disk: Vec<String>,
    },
    /// Take a disk away from a running domain, once its guest lets go of it
    #[command(after_help = "Example:\n  ox block-detach demo xvdb")]
    BlockDetach(BlockDetach),
    /// List the disks of domains
    #[command(after_help = "Examples:\n  ox block-list\n  ox block-list demo")]
    BlockList(BlockList),
    /// Give a running domain a network card
    #[command(after_help = "\
Examples:
  ox network-attach demo mac=00:16:3e:00:00:07,bridge=xenbr0
  ox network-attach demo bridge=xenbr0 rate=10Mb/s")]
    NetworkAttach {
        /// Name or number
        domain: String,
        /// The card, as in the configuration's vif=
        vif: Vec<String>,
    },
    /// Take a network card away from a running domain
    #[command(after_help = "Example:\n  ox network-detach demo 0")]
    NetworkDetach {
        /// Name or number
        domain: String,
        /// The card's number or its address
        device: String,
    },
    /// List the network cards of domains
    #[command(after_help = "Example:\n  ox network-list demo")]
    NetworkList(BlockList),
    /// Show how long domains have been running
    #[command(after_help = "Examples:\n  ox uptime\n  ox uptime demo --json")]
    Uptime {
        /// Names or numbers; all domains if none
        domains: Vec<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Show what domains use up, again and again
    #[command(after_help = "\
Keys: s sorts by something else, q quits.
Examples:
  ox top -d 1
  ox top -b -i 2 > usage.txt")]
    Top(Top),
    /// Print the hypervisor's log
    #[command(
        after_help = "Examples:\n  ox dmesg | tail\n  ox dmesg -c                  and clear it"
    )]
    Dmesg {
        /// Clear it afterwards
        #[arg(short, long)]
        clear: bool,
    },
    /// Press debug keys of the hypervisor; what they print is in `ox dmesg`
    #[command(
        after_help = "Examples:\n  ox debug-keys h && ox dmesg | tail -30    which keys there are\n  ox debug-keys qr"
    )]
    DebugKeys {
        /// The keys, a character each
        keys: String,
    },
    /// Send an event to a domain's vCPU
    #[command(after_help = "Example:\n  ox trigger demo nmi")]
    Trigger {
        /// Name or number
        domain: String,
        /// What to send
        event: TriggerEvent,
        /// Number of the vCPU
        #[arg(default_value_t = 0)]
        vcpu: u32,
    },
    /// Send a magic system request to a Linux guest
    #[command(after_help = "Example:\n  ox sysrq demo s              sync its disks")]
    Sysrq {
        /// Name or number
        domain: String,
        /// The request's letter, such as s to sync
        letter: char,
    },
    /// Write the memory of a domain to a file, for `crash`, `gdb` and the like
    #[command(after_help = "\
The domain goes on meanwhile: `ox pause` it first to have all of one moment.
Example: ox dump-core demo /var/tmp/demo.core")]
    DumpCore {
        /// Name or number
        domain: String,
        /// A file that is not there; the default is /var/lib/xen/dump/NAME-TIME
        file: Option<PathBuf>,
    },
    /// Check configuration files, show what keys there are and what a domain was made from
    #[command(
        subcommand,
        after_help = "Examples:\n  ox config check web.cfg\n  ox config keys --json\n  ox config show demo"
    )]
    Config(Config),
    /// Look at xenstore, the database of domains and their devices
    #[command(
        subcommand,
        after_help = "Examples:\n  ox store ls /local/domain/0\n  ox store read /local/domain/1/name"
    )]
    Store(Store),
    /// Do what on_poweroff and the like say when domains stop; dom0 starts this by itself
    #[command(after_help = "\
It may be killed at any time: what it must know is in /run/oxen/domains, and the next one goes on from there.
A domain that lives less than a minute again and again is started again later and later.
Example: ox supervise --log /var/log/xen/supervisor.log")]
    Supervise(Supervise),
    /// Print a script that completes ox's words in a shell
    #[command(after_help = "Example: ox completion bash > /etc/bash_completion.d/ox")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page of ox or of one of its verbs
    #[command(after_help = "\
Examples:
  ox man > /usr/share/man/man1/ox.1
  ox man create > /usr/share/man/man1/ox-create.1")]
    Man {
        /// The verb
        verb: Option<String>,
    },
}
