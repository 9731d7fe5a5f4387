//! Xen 4.17's own tools, from Debian's packages: downloaded and unpacked, never installed. They are judges of the hypervisor's ABI
//! and of xenstored, and no part of the project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{self, Archive};
use super::newc::Newc;
use super::{cache, initrd, toolstack};
use crate::host;
use crate::progress::Step;

const FOLDER: &str = "xen-4.17-tools-2";
/// Where libraries and tools look for each other.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PROGRAMS: &str = "usr/lib/xen-4.17/bin";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// A package, and what is taken from it: libraries by the names that others link to, programs.
struct Part {
    package: &'static str,
    libraries: &'static [&'static str],
    programs: &'static [&'static str],
}

const fn libraries(package: &'static str, libraries: &'static [&'static str]) -> Part {
    Part {
        package,
        libraries,
        programs: &[],
    }
}

const PARTS: &[Part] = &[
    Part {
        package: "xen-utils-4.17",
        libraries: &[],
        programs: &[
            "xl",
            "xenconsole",
            "xenconsoled",
            "xenstored",
            "libxl-save-helper",
            "xen-init-dom0",
        ],
    },
    Part {
        package: "xenstore-utils",
        libraries: &[],
        programs: &["xenstore"],
    },
    libraries(
        "libxenmisc4.17",
        &[
            "libxenctrl.so.4.17",
            "libxenguest.so.4.17",
            "libxenlight.so.4.17",
            "libxlutil.so.4.17",
        ],
    ),
    libraries("libxencall1", &["libxencall.so.1"]),
    libraries("libxendevicemodel1", &["libxendevicemodel.so.1"]),
    libraries("libxenevtchn1", &["libxenevtchn.so.1"]),
    libraries("libxenforeignmemory1", &["libxenforeignmemory.so.1"]),
    libraries("libxengnttab1", &["libxengnttab.so.1"]),
    libraries("libxenhypfs1", &["libxenhypfs.so.1"]),
    libraries("libxenstore4", &["libxenstore.so.4"]),
    libraries("libxentoolcore1", &["libxentoolcore.so.1"]),
    libraries("libxentoollog1", &["libxentoollog.so.1"]),
    libraries("libyajl2", &["libyajl.so.2"]),
    libraries("libuuid1", &["libuuid.so.1"]),
    libraries("liblzma5", &["liblzma.so.5"]),
    libraries("libzstd1", &["libzstd.so.1"]),
    libraries("zlib1g", &["libz.so.1"]),
    // Not linked to: the C library loads it when a thread is cancelled, as `xl create` does.
    libraries("libgcc-s1", &["libgcc_s.so.1"]),
    libraries("libc6", &["libc.so.6", "ld-linux-x86-64.so.2"]),
];

/// What `xenstore` is called by the users of it: it goes by its own name.
const XENSTORE: [&str; 8] = [
    "chmod", "exists", "list", "ls", "read", "rm", "watch", "write",
];

/// `xl` wants to read something here.
const XL_CONF: &str = "# xl's own defaults are right for dom0.\n";
/// Where they keep locks, and what they note of domains.
const FOLDERS: [&str; 4] = ["var/lock", "var/run/xen", "var/lib/xen", "var/log/xen"];

/// A folder with the tools and their libraries as they are to lie below dom0's root, from the cache if it is there.
///
/// # Errors
/// The packages cannot be had, or do not hold what they should.
pub fn tools() -> Result<PathBuf> {
    if !host::cache().join(FOLDER).exists() && !host::is_debian() {
        bail!(
            "no Xen tools: they come from Debian 12's packages xen-utils-4.17 and xenstore-utils"
        );
    }
    cache::folder(FOLDER, |work| {
        let step = Step::start("fetching Xen 4.17's tools");
        let archive = Archive::open(&["bookworm", "bookworm-security"], false)?;
        for folder in [LIBRARIES, PROGRAMS, "lib64"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let tree = work.join("tree");
        for part in PARTS {
            step.detail(part.package);
            let file = archive.download(part.package, work)?;
            archive::unpack(&file, &tree)?;
            fs::remove_file(file)?;
            take(part, &tree, work)?;
            fs::remove_dir_all(&tree)?;
        }
        let (from, to) = (work.join(LIBRARIES), work.join(LOADER));
        fs::rename(from.join("ld-linux-x86-64.so.2"), to)?;
        step.done();
        Ok(())
    })
}

/// dom0's image `initrd` with these tools in an archive behind its own.
///
/// # Errors
/// Those of [`tools`], or a file cannot be read or written.
pub fn with_xen_tools(initrd: &Path) -> Result<PathBuf> {
    let root = tools()?;
    let mut archive = Newc::new();
    initrd::add_tree(&mut archive, &root, "")?;
    archive.file("etc/xen/xl.conf", XL_CONF.into(), false);
    for folder in FOLDERS {
        archive.folder(folder);
    }
    archive.symlink("usr/sbin/xl", &format!("/{PROGRAMS}/xl"));
    for name in XENSTORE {
        let link = format!("usr/bin/xenstore-{name}");
        archive.symlink(&link, &format!("/{PROGRAMS}/xenstore"));
    }
    toolstack::keep(&archive.behind(initrd)?)
}

/// Copies what is wanted of an unpacked package, by the names that are asked for.
fn take(part: &Part, tree: &Path, root: &Path) -> Result<()> {
    let library_folders = ["lib/x86_64-linux-gnu", LIBRARIES];
    let program_folders = [PROGRAMS, "usr/bin"];
    let wanted = part
        .libraries
        .iter()
        .map(|name| (*name, &library_folders, LIBRARIES))
        .chain(
            part.programs
                .iter()
                .map(|name| (*name, &program_folders, PROGRAMS)),
        );
    for (name, folders, to) in wanted {
        let file = folders
            .iter()
            .map(|folder| tree.join(folder).join(name))
            .find(|file| file.exists())
            .with_context(|| format!("package {} holds no {name}", part.package))?;
        let target = root.join(to).join(name);
        fs::copy(file, &target)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
