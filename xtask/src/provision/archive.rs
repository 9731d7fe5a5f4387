//! Packages of other Debian suites, by the machine's own mirror: apt with lists of its own checks signatures and sums, and
//! the system's configuration stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;

/// Debian's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A view of the archive with some suites.
pub struct Archive {
    options: Vec<String>,
}

impl Archive {
    /// Opens the given suites, with sources if asked, and fetches their lists.
    ///
    /// # Errors
    /// The machine's mirror is not known or does not answer.
    pub fn open(suites: &[&str], sources: bool) -> Result<Self> {
        let mirror = mirror()?;
        let root = host::cache().join("apt").join(suites.join("+"));
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut list = String::new();
        for suite in suites {
            for kind in ["deb", "deb-src"]
                .into_iter()
                .filter(|kind| sources || *kind == "deb")
            {
                list += &format!("{kind} [signed-by={KEYRING}] {mirror} {suite} main\n");
            }
        }
        let list_file = root.join("sources.list");
        fs::write(&list_file, list)?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let archive = Self {
            options: vec![
                option("Dir::State::lists", &root.join("lists")),
                option("Dir::Cache", &root.join("cache")),
                option("Dir::Etc::sourcelist", &list_file),
                "Dir::Etc::sourceparts=/dev/null".into(),
                "APT::Sandbox::User=".into(),
            ],
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
        // Only the original source is used: it does not matter if a mirror lost one of Debian's own additions.
        let tarball = find_file(folder, |file| file.contains(".orig.tar."));
        match (tarball, fetched) {
            (Some(tarball), _) => Ok(tarball),
            (None, Err(error)) => {
                Err(error).with_context(|| format!("the source of {package} cannot be downloaded"))
            }
            (None, Ok(())) => bail!("the source of {package} has no original tarball"),
        }
    }

    /// Versions of a package, the newest first.
    pub fn versions(&self, package: &str) -> Vec<String> {
        let output = self
            .command("apt-cache")
            .args(["madison", package])
            .output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|version| version.trim().to_owned())
            .collect()
    }

    /// The packages that a package depends on directly.
    pub fn dependencies(&self, package: &str) -> Vec<String> {
        let output = self
            .command("apt-cache")
            .args(["depends", package])
            .output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(|name| name.trim_matches(['<', '>']).to_owned())
            .collect()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Unpacks a binary package.
///
/// # Errors
/// `dpkg-deb` fails.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    host::run_quiet(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))
}

/// The first Debian mirror that the machine's apt is configured with.
fn mirror() -> Result<String> {
    let text = host::capture(
        "apt-get",
        &[
            "indextargets",
            "--format",
            "$(CREATED_BY) $(REPO_URI) $(ORIGIN) $(LABEL)",
        ],
    )
    .unwrap_or_default();
    let from_targets = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (kind, uri, rest) = (
            words.next()?,
            words.next()?,
            words.collect::<Vec<_>>().join(" "),
        );
        (kind == "Packages" && rest == "Debian Debian").then(|| uri.to_owned())
    });
    from_targets.or_else(mirror_from_sources).context(
        "no Debian mirror in apt's configuration; run apt-get update, or give kernels with --dom0-kernel and --dom0-initrd",
    )
}

/// Before the first `apt-get update` there are no targets: the configuration itself is read.
fn mirror_from_sources() -> Option<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(folder);
    let text: String = files
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect::<Vec<_>>()
        .join("\n");
    text.split_ascii_whitespace()
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

/// A file in `folder` whose name fits.
fn find_file(folder: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .find(|entry| fits(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
}
