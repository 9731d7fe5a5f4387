//! What there is at a moment, and what was used up between two.

use std::time::Duration;

use crate::failure::{Context, Failure};
use crate::host::{DomainState, MachineInfo, Toolstack, Version};
use crate::{names, output};

/// Columns.
pub const HEADER: [&str; 9] = [
    "NAME",
    "ID",
    "STATE",
    "CPU(sec)",
    "CPU(%)",
    "MEM(k)",
    "MEM(%)",
    "MAXMEM(k)",
    "VCPUS",
];
/// Those with numbers.
pub const RIGHT: [usize; 7] = [1, 3, 4, 5, 6, 7, 8];

/// What there is at a moment.
pub struct Sample {
    domains: Vec<(DomainState, Option<String>)>,
    machine: MachineInfo,
    version: Version,
}

impl Sample {
    /// Asks hypervisor and xenstore.
    pub fn take(host: &mut dyn Toolstack) -> Result<Self, Failure> {
        let domains = names::all(host)?;
        let xen = host.xen()?;
        Ok(Self {
            domains,
            machine: xen.machine().context(|| "look at the machine".to_owned())?,
            version: xen
                .version()
                .context(|| "ask for the hypervisor's version".to_owned())?,
        })
    }
}

/// What comes first in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Who uses most CPU time.
    #[default]
    Cpu,
    /// Who has most memory.
    Memory,
    /// The lowest number.
    Number,
    /// The first name in the alphabet.
    Name,
}

impl Order {
    /// The next one.
    pub fn next(self) -> Self {
        match self {
            Order::Cpu => Order::Memory,
            Order::Memory => Order::Number,
            Order::Number => Order::Name,
            Order::Name => Order::Cpu,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Order::Cpu => "CPU",
            Order::Memory => "memory",
            Order::Number => "number",
            Order::Name => "name",
        }
    }
}

struct Row {
    state: DomainState,
    name: String,
    /// Tenths of a percent of one CPU; nothing before there are two samples of the domain.
    cpu: Option<u64>,
    memory_percent: u64,
}

/// What is shown.
pub struct View {
    /// Lines about the whole.
    pub head: Vec<String>,
    rows: Vec<Row>,
}

impl View {
    /// Of a sample, and of the one before it and the time between the two.
    pub fn new(now: &Sample, before: Option<(&Sample, Duration)>) -> Self {
        let total = now.machine.total_kib.max(1);
        let rows: Vec<Row> = now
            .domains
            .iter()
            .map(|(state, name)| Row {
                name: name.clone().unwrap_or_else(|| "(null)".to_owned()),
                cpu: before.and_then(|(sample, time)| used(state, sample, time)),
                memory_percent: state.memory_kib * 1000 / total,
                state: state.clone(),
            })
            .collect();
        let count =
            |test: fn(&DomainState) -> bool| rows.iter().filter(|row| test(&row.state)).count();
        let version = &now.version;
        let head = vec![
            format!(
                "ox top - Xen {}.{}{}, {} CPUs at {} MHz",
                version.major,
                version.minor,
                version.extra,
                now.machine.cpus,
                now.machine.cpu_khz / 1000
            ),
            format!(
                "{} domains: {} running, {} blocked, {} paused, {} crashed, {} dying, {} shut down",
                rows.len(),
                count(|state| state.running),
                count(|state| state.blocked),
                count(|state| state.paused),
                count(|state| state.shutdown == Some("crash")),
                count(|state| state.dying),
                count(|state| state.shutdown.is_some_and(|reason| reason != "crash")),
            ),
            format!(
                "Mem: {}k total, {}k used, {}k free",
                now.machine.total_kib,
                now.machine.total_kib.saturating_sub(now.machine.free_kib),
                now.machine.free_kib
            ),
        ];
        Self { head, rows }
    }

    /// The table's cells.
    pub fn rows(&self, order: Order) -> Vec<[String; 9]> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        match order {
            Order::Cpu => rows.sort_by_key(|row| std::cmp::Reverse(row.cpu)),
            Order::Memory => rows.sort_by_key(|row| std::cmp::Reverse(row.state.memory_kib)),
            Order::Number => {}
            Order::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        rows.into_iter().map(Row::cells).collect()
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let state = &self.state;
        let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
        let limit = if state.max_memory_kib >= u64::from(u32::MAX) * 4 {
            "no limit".to_owned()
        } else {
            state.max_memory_kib.to_string()
        };
        [
            self.name.clone(),
            state.domid.to_string(),
            state.flags(),
            output::seconds(state.cpu_time_ns),
            self.cpu.map_or_else(|| "-".to_owned(), tenths),
            state.memory_kib.to_string(),
            tenths(self.memory_percent),
            limit,
            state.vcpus_online.to_string(),
        ]
    }
}

fn used(state: &DomainState, before: &Sample, time: Duration) -> Option<u64> {
    let (then, _) = before
        .domains
        .iter()
        .find(|(other, _)| (other.domid, other.uuid) == (state.domid, state.uuid))?;
    let ran = state.cpu_time_ns.saturating_sub(then.cpu_time_ns);
    let passed = u64::try_from(time.as_nanos()).ok()?.max(1);
    Some(ran.saturating_mul(1000) / passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn shares_are_of_the_time_between_two_samples() -> Result<(), Failure> {
        let mut host = Fake::new();
        host.0.borrow_mut().add(3, "demo");
        let before = Sample::take(&mut host)?;
        assert_eq!(View::new(&before, None).rows(Order::Number)[1][4], "-");
        host.0.borrow_mut().domains[1].cpu_time_ns += 500_000_000;
        host.0.borrow_mut().add(4, "new");
        let now = Sample::take(&mut host)?;
        let view = View::new(&now, Some((&before, Duration::from_secs(2))));
        let rows = view.rows(Order::Cpu);
        assert_eq!((rows[0][0].as_str(), rows[0][4].as_str()), ("demo", "25.0"));
        let names: Vec<_> = view
            .rows(Order::Name)
            .into_iter()
            .map(|[name, ..]| name)
            .collect();
        assert_eq!(names, ["Domain-0", "demo", "new"]);
        assert!(view.head[1].starts_with("3 domains: 0 running, 3 blocked"));
        Ok(())
    }

    #[test]
    fn orders_come_around() {
        let mut order = Order::default();
        for name in ["CPU", "memory", "number", "name", "CPU"] {
            assert_eq!(order.name(), name);
            order = order.next();
        }
    }
}
