//! Numbers of disks as a guest sees them (`docs/man/xen-vbd-interface.7`).

/// Major number of Xen's disks in the old numbering.
const XEN: u32 = 202;
/// What marks the newer numbering, for more disks and partitions.
const EXTENDED: u32 = 1 << 28;
/// Disks that can be numbered.
const MOST: u32 = 1 << 20;

/// The number of a disk by its name: `xvda`, `sdb1`, `hdc`, `d0p1`, or a number itself.
pub fn number(name: &str) -> Option<u32> {
    if let Some(hex) = name.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok();
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok();
    }
    if let Some(rest) = name.strip_prefix("xvd") {
        let (disk, partition) = lettered(rest)?;
        return xen(disk, partition);
    }
    if let Some(rest) = name.strip_prefix("hd") {
        let (disk, partition) = lettered(rest)?;
        let (major, unit) = match disk {
            0 | 1 => (3, disk),
            2 | 3 => (22, disk - 2),
            _ => return None,
        };
        return (partition < 64).then_some(major << 8 | unit << 6 | partition);
    }
    if let Some(rest) = name.strip_prefix("sd") {
        let (disk, partition) = lettered(rest)?;
        return (disk < 16 && partition < 16).then_some(8 << 8 | disk << 4 | partition);
    }
    let rest = name.strip_prefix('d')?;
    let (disk, partition) = rest.split_once('p').unwrap_or((rest, "0"));
    xen(decimal(disk)?, decimal(partition)?)
}

fn xen(disk: u32, partition: u32) -> Option<u32> {
    if disk < 16 && partition < 16 {
        return Some(XEN << 8 | disk << 4 | partition);
    }
    (disk < MOST && partition < 256).then_some(EXTENDED | disk << 8 | partition)
}

/// Letters, which count as `a`, …, `z`, `aa`, …, then the partition's number, if any.
fn lettered(text: &str) -> Option<(u32, u32)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_lowercase())
        .unwrap_or(text.len());
    let (letters, partition) = text.split_at(end);
    let count = letters.bytes().try_fold(0_u32, |count, letter| {
        count
            .checked_mul(26)?
            .checked_add(u32::from(letter - b'a') + 1)
    })?;
    let partition = if partition.is_empty() {
        0
    } else {
        decimal(partition).filter(|partition| *partition > 0)?
    };
    Some((count.checked_sub(1)?, partition))
}

fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_those_of_the_interface() {
        for (name, expected) in [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdb", 51728),
            ("d1p0", 51728),
            ("d1", 51728),
            ("xvdp15", 51967),
            ("xvdq", 1 << 28 | 16 << 8),
            ("xvda16", 1 << 28 | 16),
            ("xvdaa", 1 << 28 | 26 << 8),
            ("hda", 768),
            ("hdb1", 833),
            ("hdc", 5632),
            ("sda", 2048),
            ("sdb2", 2066),
            ("51712", 51712),
            ("0xca00", 51712),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for wrong in [
            "",
            "xvd",
            "xvda0",
            "xvdA",
            "hde",
            "sdq",
            "d",
            "dp1",
            "d0p",
            "vda",
            "xvdzzzzzzzz",
            "0x",
            "xvda1x",
            "99999999999",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
