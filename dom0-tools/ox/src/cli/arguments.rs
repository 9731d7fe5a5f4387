//! Arguments of the verbs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use oxen_abi::sysctl::scheduler::RATE_LIMITS;

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Attach to the console as soon as the domain exists
    #[arg(short, long, conflicts_with = "dry_run")]
    pub console: bool,
    /// Leave the domain paused
    #[arg(short, long)]
    pub paused: bool,
    /// Stay until the domain is gone for good
    #[arg(short = 'F', long, conflicts_with_all = ["dry_run", "unsupervised"])]
    pub foreground: bool,
    /// Leave the domain as it is when it stops, whatever its configuration says
    #[arg(short = 'e', long)]
    pub unsupervised: bool,
    /// Check everything and print the configuration as JSON, but create nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// The configuration, in xl.cfg syntax
    pub file: PathBuf,
    /// Settings that replace or (+=) lengthen those of the file
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Show identity, limits and the reason of a shutdown too
    #[arg(short, long)]
    pub long: bool,
    #[command(flatten)]
    pub json: Json,
    /// Names or numbers; all domains if none
    pub domains: Vec<String>,
}

/// `--json`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// One domain.
#[derive(Debug, Args)]
pub struct Domain {
    /// Name or number
    pub domain: String,
}

/// Arguments of `shutdown` and `reboot`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Wait until it has stopped; twice: until it is gone, or started again
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub wait: u8,
    /// Give up after this many seconds; without -w, a guest has 60 to take the request
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// All domains but domain 0
    #[arg(short, long, conflicts_with = "domain")]
    pub all: bool,
    /// Name or number
    #[arg(required_unless_present = "all")]
    pub domain: Option<String>,
}

/// Arguments of `supervise`.
#[derive(Debug, Args)]
pub struct Supervise {
    /// Where to write what happens, a line of JSON each
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/log/xen/supervisor.log"
    )]
    pub log: PathBuf,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub delay: u64,
    /// Look so often, then end
    #[arg(short = 'i', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print tables below each other, for files and programs
    #[arg(short, long)]
    pub batch: bool,
}

impl Top {
    /// The time between two looks.
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.delay)
    }
}

/// Arguments of `sched-credit2`.
#[derive(Debug, Args)]
pub struct Share {
    /// Name or number; all domains if none
    #[arg(short, long)]
    pub domain: Option<String>,
    /// Share against other domains; 256 is the default
    #[arg(short, long, requires = "domain", value_parser = clap::value_parser!(u16).range(1..))]
    pub weight: Option<u16>,
    /// Most time, in percent of one CPU; 0 for no bound
    #[arg(short, long, requires = "domain")]
    pub cap: Option<u16>,
    /// The scheduler's own parameter instead: microseconds that a virtual CPU which wakes another runs on before that one may take its place
    #[arg(short = 's', long = "schedparam", conflicts_with = "domain")]
    pub scheduler: bool,
    /// Set it: 100 to 500000, or 0 for no such limit
    #[arg(short, long = "ratelimit_us", value_name = "MICROSECONDS", requires = "scheduler", value_parser = rate_limit)]
    pub ratelimit: Option<u32>,
    #[command(flatten)]
    pub json: Json,
}

fn rate_limit(text: &str) -> Result<u32, String> {
    let number = text.parse().ok();
    let allowed = |micros: &u32| *micros == 0 || RATE_LIMITS.contains(micros);
    let (least, most) = (RATE_LIMITS.start(), RATE_LIMITS.end());
    (number.filter(allowed)).ok_or_else(|| format!("neither 0 nor from {least} to {most}"))
}

/// Arguments of `mem-set` and `mem-max`.
#[derive(Debug, Args)]
pub struct Memory {
    /// Name or number
    pub domain: String,
    /// Size in MiB, or with a unit: b, k, m, g, t
    pub size: String,
}

/// Arguments of `block-detach`.
#[derive(Debug, Args)]
pub struct BlockDetach {
    /// Name or number
    pub domain: String,
    /// The disk's name in the guest, such as xvdb, or its number
    pub device: String,
    /// Do not wait for the guest: what it has not written is lost
    #[arg(short, long)]
    pub force: bool,
}

/// Arguments of `block-list`.
#[derive(Debug, Args)]
pub struct BlockList {
    /// Names or numbers; all domains if none
    pub domains: Vec<String>,
    #[command(flatten)]
    pub json: Json,
}

/// What `trigger` sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TriggerEvent {
    /// Non-maskable interrupt
    Nmi,
    /// Reset
    Reset,
    /// INIT
    Init,
    /// Power button
    Power,
    /// Sleep button
    Sleep,
}

/// Verbs about configurations.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say what is wrong with a file; prints nothing but warnings if nothing is
    Check {
        /// The configuration
        file: PathBuf,
        /// Settings that replace or (+=) lengthen those of the file
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// List every key of xl.cfg and what becomes of it
    Keys(Json),
    /// Print the record of a domain as JSON: its configuration, what becomes of it, its restarts
    Show {
        /// Name or number
        domain: String,
    },
}

/// Verbs about xenstore.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// List a node and all below it with their values
    Ls {
        /// The node
        #[arg(default_value = "/")]
        path: String,
    },
    /// Print a node's value
    Read {
        /// The node
        path: String,
    },
    /// Print how much there is: nodes, watches, connections, domains, transactions
    Stats,
}
