//! From settings to the typed configuration.

use std::path::PathBuf;

use uuid::Uuid;

use super::treat::treat;
use super::{
    Action, Actions, Affinity, DEFAULT_EVENT_CHANNELS, DEFAULT_WEIGHT, DomainConfig,
    MAX_EVENT_CHANNELS, MAX_VCPUS, Parsed, Places, check_name,
};
use crate::cpulist::CpuList;
use crate::error::{ConfigError, Errors, Position, Source, Warning};
use crate::read::Reader;
use crate::settings::Settings;
use crate::syntax::Value;

/// Most memory that can be asked for, in MiB: what fits a guest physical address of 46 bits.
const MAX_MEMORY_MIB: u32 = 1 << 26;

/// Checks every setting and gives the configuration.
///
/// # Errors
/// Every setting that cannot be honoured.
pub fn from_settings(settings: &Settings) -> Result<Parsed, Errors> {
    let mut warnings = Vec::new();
    let mut reader = Reader::new(settings);
    for setting in settings.iter() {
        if let Some(error) = treat(setting, &mut warnings) {
            reader.fail(error);
        }
    }
    let config = read(&mut reader, &mut warnings);
    reader.errors.sort_by_key(|error| error.position);
    match config {
        Some(config) if reader.errors.is_empty() => Ok(Parsed {
            config,
            warnings,
            places: Places::of(settings),
        }),
        _ => Err(Errors(reader.errors)),
    }
}

fn read(reader: &mut Reader<'_>, warnings: &mut Vec<Warning>) -> Option<DomainConfig> {
    domain_type(reader);
    let name = name(reader);
    let uuid = reader.text("uuid").and_then(|text| {
        let parsed = Uuid::parse_str(text).ok();
        if parsed.is_none() {
            let help = "write 32 hexadecimal digits, as in 6f8b0c1e-4a53-4d58-9c6e-3c5a2d9f7b10";
            reader.refuse("uuid", &format!("{text:?} is not a UUID"), help);
        }
        parsed
    });
    let kernel = path(reader, "kernel");
    if kernel.is_none() && reader.setting("kernel").is_none() {
        missing(
            reader,
            "kernel",
            "name the guest's kernel: kernel = \"/boot/vmlinuz\"",
        );
    }
    let memory = reader.number("memory", 1, MAX_MEMORY_MIB);
    let maxmem = reader.number("maxmem", 1, MAX_MEMORY_MIB);
    // xl's default when only the maximum is given, or nothing at all, is less useful than an error.
    let memory = memory.or(maxmem);
    if memory.is_none() && reader.setting("memory").is_none() && reader.setting("maxmem").is_none()
    {
        missing(reader, "memory", "say how much, in MiB: memory = 256");
    }
    if let (Some(memory), Some(maxmem)) = (memory, maxmem)
        && maxmem < memory
    {
        let message = format!("{maxmem} MiB is less than memory, {memory} MiB");
        reader.refuse("maxmem", &message, "raise it, or lower memory");
    }
    let maxvcpus = reader.number("maxvcpus", 1, MAX_VCPUS);
    let vcpus = reader.number("vcpus", 1, MAX_VCPUS).unwrap_or(1);
    if let Some(maxvcpus) = maxvcpus
        && maxvcpus < vcpus
    {
        let message = format!("{maxvcpus} is less than vcpus, {vcpus}");
        reader.refuse("maxvcpus", &message, "raise it, or lower vcpus");
    }
    let maxvcpus = maxvcpus.unwrap_or(vcpus);
    let config = DomainConfig {
        uuid,
        ramdisk: path(reader, "ramdisk"),
        cmdline: cmdline(reader, warnings),
        memory_mib: memory.unwrap_or(0).into(),
        maxmem_mib: maxmem.or(memory).unwrap_or(0).into(),
        vcpus,
        maxvcpus,
        cpus: affinity(reader, "cpus", maxvcpus),
        cpus_soft: affinity(reader, "cpus_soft", maxvcpus),
        cpu_weight: small(reader, "cpu_weight", 1).unwrap_or(DEFAULT_WEIGHT),
        cap: small(reader, "cap", 0).unwrap_or(0),
        actions: actions(reader),
        max_grant_frames: reader.number("max_grant_frames", 1, i32::MAX as u32),
        max_maptrack_frames: reader.number("max_maptrack_frames", 0, i32::MAX as u32),
        max_grant_version: reader.number("max_grant_version", 1, 2),
        max_event_channels: reader
            .number("max_event_channels", 1, MAX_EVENT_CHANNELS)
            .unwrap_or(DEFAULT_EVENT_CHANNELS),
        disks: specs(reader, "disk"),
        vifs: specs(reader, "vif"),
        name: name.unwrap_or_default(),
        kernel: kernel.unwrap_or_default(),
    };
    reader.errors.is_empty().then_some(config)
}

/// An error for a key that is not there: it has no place, so it stands at the start of the text.
fn missing(reader: &mut Reader<'_>, key: &'static str, help: &str) {
    let source = reader
        .any_source()
        .unwrap_or_else(|| Source::from("configuration"));
    let start = Position { line: 1, column: 1 };
    reader.fail(
        ConfigError::new(&source, start, "is missing")
            .key(key)
            .help(help),
    );
}

fn domain_type(reader: &mut Reader<'_>) {
    match reader.text("type") {
        Some("pvh") => {}
        Some(kind @ ("hvm" | "pv")) => {
            let message = format!("{kind} domains are not supported");
            reader.refuse("type", &message, "Oxen runs PVH domains: type = \"pvh\"");
        }
        Some(other) => {
            let message = format!("cannot be {other:?}");
            reader.refuse("type", &message, "it takes pvh");
        }
        None if reader.setting("type").is_some() => {}
        // xl's default is pv, which Oxen cannot give: guessing would start another kind of domain than the file means under xl.
        None => missing(
            reader,
            "type",
            "xl's default is pv, Oxen runs PVH domains: type = \"pvh\"",
        ),
    }
}

fn name(reader: &mut Reader<'_>) -> Option<String> {
    let Some(name) = reader.text("name") else {
        if reader.setting("name").is_none() {
            missing(reader, "name", "every domain has one: name = \"web1\"");
        }
        return None;
    };
    match check_name(name) {
        Ok(()) => Some(name.to_owned()),
        Err(why) => {
            reader.refuse("name", why, "use letters, digits, \"-\", \"_\" and \".\"");
            None
        }
    }
}

fn path(reader: &mut Reader<'_>, key: &'static str) -> Option<PathBuf> {
    let text = reader.text(key)?;
    if text.is_empty() {
        reader.refuse(key, "the path is empty", "write the path of a file");
        return None;
    }
    Some(PathBuf::from(text))
}

/// `cmdline=`, or `root=` and `extra=` joined as xl joins them.
fn cmdline(reader: &mut Reader<'_>, warnings: &mut Vec<Warning>) -> String {
    let cmdline = reader.text("cmdline");
    let root = reader.text("root").map(|root| format!("root={root}"));
    let extra = reader.text("extra").map(str::to_owned);
    let Some(cmdline) = cmdline else {
        let parts: Vec<_> = root.into_iter().chain(extra).collect();
        return parts.join(" ");
    };
    for key in ["root", "extra"] {
        if let Some(setting) = reader.setting(key) {
            let warning = setting.error_at(setting.position, "has no effect beside cmdline");
            warnings.push(Warning(warning.help("put it into cmdline")));
        }
    }
    cmdline.to_owned()
}

fn affinity(reader: &mut Reader<'_>, key: &'static str, maxvcpus: u32) -> Affinity {
    let Some(setting) = reader.setting(key) else {
        return Affinity::Any;
    };
    if let Value::Text(text) | Value::Number(text) = &setting.item.value {
        return match text.parse() {
            Ok(list) => Affinity::Domain(list),
            Err(error) => {
                reader.fail(setting.error(error.to_string()));
                Affinity::Any
            }
        };
    }
    let Some((setting, texts)) = reader.list(key) else {
        return Affinity::Any;
    };
    if texts.len() > maxvcpus as usize {
        let message = format!("names CPUs for {} vCPUs of {maxvcpus}", texts.len());
        reader.fail(
            setting
                .error(message)
                .help("shorten the list, or raise maxvcpus"),
        );
    }
    let mut lists: Vec<CpuList> = Vec::new();
    for (position, text) in texts {
        match text.parse() {
            Ok(list) => lists.push(list),
            Err(error) => reader.fail(setting.error_at(position, error.to_string())),
        }
    }
    Affinity::PerVcpu(lists)
}

fn small(reader: &mut Reader<'_>, key: &'static str, least: u32) -> Option<u16> {
    let number = reader.number(key, least, u16::MAX.into())?;
    u16::try_from(number).ok()
}

fn actions(reader: &mut Reader<'_>) -> Actions {
    let default = Actions::default();
    let mut action = |key, default| reader.named(key, &Action::NAMES).unwrap_or(default);
    Actions {
        on_poweroff: action("on_poweroff", default.on_poweroff),
        on_reboot: action("on_reboot", default.on_reboot),
        on_crash: action("on_crash", default.on_crash),
        on_watchdog: action("on_watchdog", default.on_watchdog),
        on_soft_reset: action("on_soft_reset", default.on_soft_reset),
    }
}

/// The elements of a list, each parsed from its string.
fn specs<T>(reader: &mut Reader<'_>, key: &'static str) -> Vec<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let Some((setting, texts)) = reader.list(key) else {
        return Vec::new();
    };
    let mut specs = Vec::new();
    for (position, text) in texts {
        match text.parse::<T>() {
            Ok(spec) => specs.push(spec),
            Err(error) => reader.fail(setting.error_at(position, error.to_string())),
        }
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KEYS, Treatment};

    #[test]
    fn the_table_and_the_code_agree_about_what_is_honoured() {
        let settings = Settings::default();
        let mut reader = Reader::new(&settings);
        read(&mut reader, &mut Vec::new());
        for key in KEYS {
            let honoured = key.treatment == Treatment::Honoured;
            assert_eq!(honoured, reader.asked.contains(key.name), "{}", key.name);
        }
    }
}
