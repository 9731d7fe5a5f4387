//! Kernel images and their packed payloads.

use oxen_core::kernel::{Compression, Image, KernelError, PvhKernel};

use super::target;

/// Larger ones are refused here, as a machine refuses those that do not fit its memory.
const LARGEST: usize = 64 << 10;

const WORDS: [&[u8]; 9] = [
    b"HdrS",
    b"\x7FELF",
    b"Xen\0",
    b"\xFD7zXZ\0",
    &[0x28, 0xB5, 0x2F, 0xFD],
    &[0x1F, 0x8B, 8],
    &[2, 0x21, 0x4C, 0x18],
    b"\x89LZO\0\r\n\x1A\n",
    &[0; 16],
];

#[test]
fn kernels() {
    target("kernels")
        .iterations(25_000)
        .words(WORDS)
        .run(|file| {
            let image = Image::parse(file)?;
            let size = image.unpacked_size();
            if size > LARGEST {
                return Err(KernelError::WrongSize);
            }
            let mut buffer = vec![0; size];
            let kernel = image.unpack_into(&mut buffer)?;
            check(&kernel);
            Ok(kernel.segments().count())
        });
}

/// A kernel that was accepted can be loaded: all of it lies below 4 GiB, and it is entered where it is.
fn check(kernel: &PvhKernel<'_>) {
    let extent = kernel.extent();
    assert!(extent.start < extent.end && extent.end <= 1 << 32);
    assert!(extent.contains(&kernel.entry.into()));
    for segment in kernel.segments() {
        assert!(segment.bytes.len() as u64 <= segment.size);
        assert!(
            segment.size == 0
                || extent.start <= segment.address && segment.address + segment.size <= extent.end
        );
    }
    assert!(
        kernel
            .relocation
            .is_none_or(|relocation| relocation.alignment.is_power_of_two())
    );
}

/// Payloads without the container around them, where most of an input's bytes count. The last four are the size.
#[test]
fn payloads() {
    target("payloads")
        .iterations(8_000)
        .words(WORDS)
        .run(|whole| {
            let (payload, size) = whole
                .split_last_chunk::<4>()
                .ok_or(KernelError::Truncated)?;
            let compression = Compression::detect(payload)?;
            let size = u32::from_le_bytes(*size) as usize;
            if size > LARGEST {
                return Err(KernelError::WrongSize);
            }
            let gzip = compression == Compression::Gzip;
            let image = Image::Packed {
                payload: if gzip { whole } else { payload },
                compression,
                size,
            };
            // A payload that unpacks is no kernel here, which is found out after it was unpacked.
            let mut buffer = vec![0; size];
            image.unpack_into(&mut buffer).map(|kernel| kernel.entry)
        });
}
