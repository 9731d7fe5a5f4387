//! The archive format of initial RAM disks: cpio with "new ASCII" headers (magic `070701`), as the kernel's documentation
//! of initramfs buffers describes it. The same entries give the same bytes, on every host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

/// What an entry is, apart from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File { content: Vec<u8>, executable: bool },
    Symlink(String),
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive in the making. A later entry replaces an earlier one of the same name; folders on the way come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Newc {
    entries: BTreeMap<String, Node>,
}

impl Newc {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty folder. Paths are relative to the root, with no slash at either end.
    pub fn folder(&mut self, path: &str) -> &mut Self {
        self.insert(path, Node::Folder)
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: Vec<u8>, executable: bool) -> &mut Self {
        self.insert(
            path,
            Node::File {
                content,
                executable,
            },
        )
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Node::Symlink(target.to_owned()))
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.insert(path, Node::CharacterDevice { major, minor })
    }

    /// Writes the archive. Several may follow each other in one file: the kernel unpacks them in turn.
    ///
    /// # Errors
    /// What the writer fails with; an entry of 4 GiB or more.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        let mut position = 0;
        for (number, (path, node)) in (1..).zip(&self.entries) {
            let header = Header::of(number, node);
            position += write_entry(output, &header, path, node.data())?;
        }
        position += write_entry(output, &Header::TRAILER, "TRAILER!!!", &[])?;
        // Whole blocks, so that an archive appended to it starts where the kernel looks for one.
        let padding = position.next_multiple_of(BLOCK) - position;
        output.write_all(&vec![0; padding])
    }

    /// The image in the file `before`, with the archive behind it.
    ///
    /// # Errors
    /// The file cannot be read; an entry of 4 GiB or more.
    pub fn behind(&self, before: &Path) -> anyhow::Result<Vec<u8>> {
        let mut image =
            fs::read(before).with_context(|| format!("{} cannot be read", before.display()))?;
        self.write_to(&mut image)?;
        Ok(image)
    }

    fn insert(&mut self, path: &str, node: Node) -> &mut Self {
        for (slash, _) in path.match_indices('/') {
            let parent = path[..slash].to_owned();
            self.entries.entry(parent).or_insert(Node::Folder);
        }
        self.entries.insert(path.to_owned(), node);
        self
    }
}

const BLOCK: usize = 512;

impl Node {
    fn data(&self) -> &[u8] {
        match self {
            Self::File { content, .. } => content,
            Self::Symlink(target) => target.as_bytes(),
            Self::Folder | Self::CharacterDevice { .. } => &[],
        }
    }
}

/// The fields that differ between entries. All belong to root and are of the epoch, so that images can be compared.
struct Header {
    number: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl Header {
    const TRAILER: Self = Self {
        number: 0,
        mode: 0,
        links: 1,
        device: (0, 0),
    };

    fn of(number: u32, node: &Node) -> Self {
        let (mode, links, device) = match node {
            Node::Folder => (0o040_755, 2, (0, 0)),
            Node::File {
                executable: true, ..
            } => (0o100_755, 1, (0, 0)),
            Node::File { .. } => (0o100_644, 1, (0, 0)),
            Node::Symlink(_) => (0o120_777, 1, (0, 0)),
            Node::CharacterDevice { major, minor } => (0o020_600, 1, (*major, *minor)),
        };
        Self {
            number,
            mode,
            links,
            device,
        }
    }
}

/// Writes an entry and returns its length. Name and data are each filled up to a multiple of four bytes.
fn write_entry(
    output: &mut impl Write,
    header: &Header,
    path: &str,
    data: &[u8],
) -> io::Result<usize> {
    let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too large"));
    let size = u32::try_from(data.len()).map_err(too_large)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
    let (major, minor) = header.device;
    let fields = [
        header.number,
        header.mode,
        0, // owner
        0, // group
        header.links,
        0, // time
        size,
        0, // device the entry is on
        0,
        major,
        minor,
        name_size,
        0, // no checksum
    ];
    let mut entry = b"070701".to_vec();
    for field in fields {
        entry.extend(format!("{field:08x}").bytes());
    }
    entry.extend(path.bytes());
    entry.push(0);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(data);
    entry.resize(entry.len().next_multiple_of(4), 0);
    output.write_all(&entry)?;
    Ok(entry.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(archive: &Newc) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).expect("memory takes it all");
        bytes
    }

    /// Name, mode and data of each entry, read back by the format's rules.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).expect("hex");
                usize::from_str_radix(text, 16).expect("hex")
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("name");
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            let mode = u32::try_from(mode).expect("32 bits");
            found.push((name, mode, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_are_read_back_with_their_folders_first() {
        let mut archive = Newc::new();
        archive
            .file("a/b/c", b"hello".to_vec(), true)
            .symlink("a/l", "b/c");
        let entries = read(&bytes(&archive));
        let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/l"]);
        assert_eq!(entries[2].1, 0o100_755);
        assert_eq!(entries[2].2, b"hello");
        assert_eq!(entries[3].2, b"b/c");
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut archive = Newc::new();
        archive
            .symlink("sbin/halt", "busybox")
            .file("sbin/halt", b"ours".to_vec(), true);
        assert_eq!(read(&bytes(&archive))[1].2, b"ours");
    }

    #[test]
    fn an_archive_ends_on_a_block_so_that_another_can_follow() {
        let mut archive = Newc::new();
        archive.file("x", vec![1; 5], false);
        assert_eq!(bytes(&archive).len() % BLOCK, 0);
    }
}
