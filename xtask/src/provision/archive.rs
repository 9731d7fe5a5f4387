//! Packages of other Debian suites, from the machine's own mirror: apt with lists of its own resolves them and checks
//! signatures and sums, and the system's configuration stays as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cache;
use crate::host;

/// Debian's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A view of the archive with some suites.
pub struct Archive {
    options: Vec<String>,
    /// apt's lists serve one process at a time.
    _lock: File,
}

impl Archive {
    /// Opens the given suites, with sources if asked, and fetches their lists. A suite `NAME-security` is left out where the
    /// machine has no mirror of the security archive.
    ///
    /// # Errors
    /// The machine's mirror is not known or does not answer.
    pub fn open(suites: &[&str], sources: bool) -> Result<Self> {
        let lock = cache::lock("apt")?;
        let root = host::cache().join("apt").join(suites.join("+"));
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let list_file = root.join("sources.list");
        fs::write(&list_file, source_list(suites, sources, &mirrors())?)?;
        // What is installed here says nothing about what another suite offers.
        let status = root.join("status");
        fs::write(&status, "")?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let archive = Self {
            options: vec![
                option("Dir::State::lists", &root.join("lists")),
                option("Dir::State::status", &status),
                option("Dir::Cache", &root.join("cache")),
                option("Dir::Etc::sourcelist", &list_file),
                "Dir::Etc::sourceparts=/dev/null".into(),
                "Dir::Etc::preferences=/dev/null".into(),
                "Dir::Etc::preferencesparts=/dev/null".into(),
                "APT::Default-Release=".into(),
                "APT::Architecture=amd64".into(),
                // Downloads go where the user may write, which apt's own user perhaps may not.
                "APT::Sandbox::User=".into(),
                "Acquire::Languages=none".into(),
                "Acquire::Retries=3".into(),
            ],
            _lock: lock,
        };
        host::run_quiet(archive.command("apt-get").arg("update")).with_context(|| {
            format!(
                "the package lists of {} cannot be fetched",
                suites.join(", ")
            )
        })?;
        Ok(archive)
    }

    /// Downloads a binary package (`name` or `name=version`) to `folder`; returns the file.
    ///
    /// # Errors
    /// There is no such package, or it cannot be fetched.
    pub fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        host::run_quiet(
            self.command("apt-get")
                .arg("download")
                .arg(package)
                .current_dir(folder),
        )
        .with_context(|| format!("package {package} cannot be downloaded"))?;
        let name = package.split('=').next().unwrap_or(package);
        find_file(folder, |file| {
            file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
        })
        .with_context(|| format!("package {package} left no file"))
    }

    /// Downloads the pieces of a source package to `folder` and returns the original tarball.
    ///
    /// # Errors
    /// There is no such source, or its tarball cannot be fetched.
    pub fn download_source(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        let fetched = host::run_quiet(
            self.command("apt-get")
                .args(["source", "--download-only"])
                .arg(package)
                .current_dir(folder),
        );
        // Each file is checked on its own. Only the original source is used: it does not matter if a mirror lost one of
        // Debian's own additions.
        let tarball = find_file(folder, |file| {
            file.contains(".orig.tar.") && !file.ends_with(".asc")
        });
        match (tarball, fetched) {
            (Some(tarball), _) => Ok(tarball),
            (None, Err(error)) => {
                Err(error).with_context(|| format!("the source of {package} cannot be downloaded"))
            }
            (None, Ok(())) => bail!("the source of {package} has no original tarball"),
        }
    }

    /// Versions of a binary package, the newest first.
    pub fn versions(&self, package: &str) -> Vec<String> {
        let lines = self.ask(&["madison", package]);
        let mut columns = lines.iter().map(|line| line.split('|').map(str::trim));
        let mut versions = Vec::new();
        for mut column in columns.by_ref() {
            let (name, version, origin) = (column.next(), column.next(), column.next());
            // Sources of the same name are listed too.
            if name == Some(package) && origin.is_some_and(|text| text.ends_with("Packages")) {
                versions.extend(version.map(str::to_owned));
            }
        }
        versions
    }

    /// The packages that the newest version of a package depends on directly.
    pub fn dependencies(&self, package: &str) -> Vec<String> {
        self.ask(&["depends", package])
            .iter()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(|name| name.trim_matches(['<', '>']).to_owned())
            .collect()
    }

    /// The lines that apt-cache answers with; none for a package that it does not know.
    fn ask(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.command("apt-cache").args(arguments).output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The lines of apt's configuration for some suites, with the machine's own mirrors. A suite `NAME-security` is left out where the
/// machine has no mirror of the security archive.
///
/// # Errors
/// The machine's mirror is not known.
pub fn sources(suites: &[&str]) -> Result<Vec<String>> {
    let list = source_list(suites, false, &mirrors())?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Unpacks a binary package.
///
/// # Errors
/// `dpkg-deb` fails.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    host::run_quiet(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))
}

/// Where the machine's apt gets Debian from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mirrors {
    main: Option<String>,
    security: Option<String>,
}

fn mirrors() -> Mirrors {
    let format = "$(CREATED_BY) $(REPO_URI) $(ORIGIN) $(LABEL)";
    let targets =
        host::capture("apt-get", &["indextargets", "--format", format]).unwrap_or_default();
    let found = mirrors_of_targets(&targets);
    if found.main.is_some() {
        return found;
    }
    // Before the first `apt-get update` there are no targets: the configuration itself is read.
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(folder);
    let enabled = files.filter(|file| {
        file.extension()
            .is_some_and(|kind| kind == "list" || kind == "sources")
    });
    let text: Vec<String> = enabled
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    mirrors_of_sources(&text.join("\n"))
}

/// From what apt tells of its lists.
fn mirrors_of_targets(text: &str) -> Mirrors {
    let mut mirrors = Mirrors::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["Packages", uri, "Debian", "Debian"] => {
                mirrors.main.get_or_insert_with(|| uri.to_owned());
            }
            ["Packages", uri, "Debian", "Debian-Security"] => {
                mirrors.security.get_or_insert_with(|| uri.to_owned());
            }
            _ => {}
        }
    }
    mirrors
}

/// From apt's configuration, where an archive is known only by the usual end of its address.
fn mirrors_of_sources(text: &str) -> Mirrors {
    let mut mirrors = Mirrors::default();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    for word in lines.flat_map(str::split_ascii_whitespace) {
        if !word.contains("://") {
            continue;
        }
        let mirror = match word.trim_end_matches('/').rsplit('/').next() {
            Some("debian") => &mut mirrors.main,
            Some("debian-security") => &mut mirrors.security,
            _ => continue,
        };
        mirror.get_or_insert_with(|| word.to_owned());
    }
    mirrors
}

fn source_list(suites: &[&str], sources: bool, mirrors: &Mirrors) -> Result<String> {
    let mut list = String::new();
    for suite in suites {
        let mirror = if suite.ends_with("-security") {
            mirrors.security.as_deref()
        } else {
            Some(mirrors.main.as_deref().context(
                "no Debian mirror in apt's configuration: add one and run apt-get update, or give dom0's files with --dom0-kernel and --dom0-initrd",
            )?)
        };
        let Some(mirror) = mirror else { continue };
        let kinds: &[&str] = if sources {
            &["deb", "deb-src"]
        } else {
            &["deb"]
        };
        for kind in kinds {
            list += &format!("{kind} [signed-by={KEYRING}] {mirror} {suite} main\n");
        }
    }
    Ok(list)
}

/// A file in `folder` whose name fits.
fn find_file(folder: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .find(|entry| fits(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "DEP-11 http://m.example/debian/ Debian Debian\n\
        Packages http://s.example/sec/ Debian Debian-Security\n\
        Packages https://other.example/apt/ Other Other\n\
        Packages http://m.example/debian/ Debian Debian\n";

    #[test]
    fn apt_tells_which_mirror_is_debians_own() {
        let mirrors = mirrors_of_targets(TARGETS);
        assert_eq!(mirrors.main.as_deref(), Some("http://m.example/debian/"));
        assert_eq!(mirrors.security.as_deref(), Some("http://s.example/sec/"));
    }

    #[test]
    fn the_configuration_is_read_where_apt_has_no_lists_yet() {
        let mirrors = mirrors_of_sources(
            "# deb http://old.example/debian x main\nURIs: http://m.example/debian\ndeb http://s.example/debian-security y main",
        );
        assert_eq!(mirrors.main.as_deref(), Some("http://m.example/debian"));
        assert_eq!(
            mirrors.security.as_deref(),
            Some("http://s.example/debian-security")
        );
    }

    #[test]
    fn a_missing_mirror_is_an_error_but_a_missing_security_mirror_is_not() {
        let mut mirrors = Mirrors::default();
        assert!(source_list(&["sid"], false, &mirrors).is_err());
        mirrors.main = Some("http://m.example/debian".into());
        let list = source_list(&["bookworm", "bookworm-security"], false, &mirrors).expect("list");
        assert_eq!(list.lines().count(), 1);
        assert!(list.starts_with("deb [signed-by="));
    }
}
