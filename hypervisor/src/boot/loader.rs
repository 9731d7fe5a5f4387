//! What the multiboot2 loader told us, copied out before its memory is used for something else.

use arrayvec::{ArrayString, ArrayVec};
use multiboot2::{BootInformation, BootInformationHeader, ElfSectionsTag, FramebufferType};
use oxen_core::address::HostPhys;

use crate::memory::layout;
use crate::stop;

/// EAX at entry from a multiboot2 loader.
const LOADER_MAGIC: u32 = multiboot2::MAGIC;
/// Longest command line kept; Linux's own limit is 2048.
const COMMAND_LINE: usize = 2048;
/// Most memory map entries kept; firmware rarely has more than a hundred.
const MEMORY_AREAS: usize = 256;

/// A physical range and its E820 type.
#[derive(Clone, Copy, Debug)]
pub struct MemoryArea {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// E820 type: 1 RAM, 2 reserved, 3 ACPI, 4 NVS, 5 unusable.
    pub kind: u32,
}

/// A module that the loader placed in memory.
#[derive(Clone, Debug)]
pub struct Module {
    /// First byte.
    pub start: HostPhys,
    /// Bytes.
    pub size: u64,
    /// The module's own command line.
    pub arguments: ArrayString<COMMAND_LINE>,
}

/// A linear or text screen that the loader set up.
#[derive(Clone, Copy, Debug)]
pub struct Framebuffer {
    /// First byte.
    pub address: HostPhys,
    /// Bytes a line.
    pub pitch: u32,
    /// Pixels (or characters) a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits a pixel (16 in text mode).
    pub bits: u8,
    /// Position and size in bits of red, green and blue; `None` for VGA text.
    pub fields: Option<[(u8, u8); 3]>,
}

/// The loader's information.
pub struct Loaded {
    /// The hypervisor's command line.
    pub command_line: ArrayString<COMMAND_LINE>,
    /// The machine's memory map.
    pub memory: ArrayVec<MemoryArea, MEMORY_AREAS>,
    /// Modules, dom0's kernel first.
    pub modules: ArrayVec<Module, 4>,
    /// The screen.
    pub framebuffer: Option<Framebuffer>,
    /// Where (a copy of) the RSDP lies: in the loader's information on UEFI, in low memory by the legacy search.
    pub rsdp: Option<HostPhys>,
    /// Symbol and string tables of this image, as the loader left them in memory.
    pub symbols: Option<super::symbols::Tables>,
    /// Range that the loader's information itself occupies.
    pub information: (HostPhys, u64),
}

/// Reads the loader's information; refuses to go on without a multiboot2 loader or a memory map.
pub fn collect(magic: u32, information: u32) -> Loaded {
    if magic != LOADER_MAGIC {
        stop::refuse_boot(format_args!(
            "not started by a multiboot2 loader (EAX {magic:#x}); use GRUB's multiboot2 command"
        ));
    }
    let pointer = layout::direct_map(HostPhys(information.into())).cast::<BootInformationHeader>();
    // SAFETY: the loader promises a complete, 8-byte-aligned structure at this address below 4 GiB, which the early
    // tables map and nothing has overwritten yet.
    let parsed = match unsafe { BootInformation::load(pointer) } {
        Ok(parsed) => parsed,
        Err(error) => stop::refuse_boot(format_args!(
            "the multiboot2 information is broken: {error}"
        )),
    };
    let mut loaded = Loaded {
        command_line: ArrayString::new(),
        memory: ArrayVec::new(),
        modules: ArrayVec::new(),
        framebuffer: framebuffer(&parsed),
        rsdp: rsdp(&parsed),
        symbols: parsed
            .get_tag::<ElfSectionsTag>()
            .and_then(super::symbols::find),
        information: (HostPhys(information.into()), parsed.total_size() as u64),
    };
    if let Some(Ok(text)) = parsed.command_line_tag().map(|tag| tag.cmdline()) {
        loaded.command_line = truncated(text);
    }
    match parsed.memory_map_tag() {
        Some(map) => {
            for area in map.memory_areas() {
                let kind = u32::from(area.typ());
                let entry = MemoryArea {
                    base: area.start_address(),
                    length: area.size(),
                    kind,
                };
                if loaded.memory.try_push(entry).is_err() {
                    log::warn!(
                        "the firmware's memory map has more than {MEMORY_AREAS} entries; the rest is not used"
                    );
                    break;
                }
            }
        }
        None => stop::refuse_boot(format_args!("the loader gave no memory map")),
    }
    for tag in parsed.module_tags() {
        let module = Module {
            start: HostPhys(tag.start_address().into()),
            size: u64::from(tag.end_address().saturating_sub(tag.start_address())),
            arguments: tag.cmdline().map(truncated).unwrap_or_default(),
        };
        if loaded.modules.try_push(module).is_err() {
            log::warn!("more than four modules; the rest is not used");
            break;
        }
    }
    loaded
}

/// As much of `text` as fits, cut at a character's end.
fn truncated<const N: usize>(text: &str) -> ArrayString<N> {
    let mut out = ArrayString::new();
    for character in text.chars() {
        if out.try_push(character).is_err() {
            log::warn!("a command line is longer than {N} bytes and was cut");
            break;
        }
    }
    out
}

fn framebuffer(parsed: &BootInformation<'_>) -> Option<Framebuffer> {
    let tag = parsed.framebuffer_tag()?.ok()?;
    let fields = match tag.buffer_type().ok()? {
        FramebufferType::RGB { red, green, blue } => {
            Some([red, green, blue].map(|field| (field.position, field.size)))
        }
        FramebufferType::Text => None,
        FramebufferType::Indexed { .. } => return None,
    };
    Some(Framebuffer {
        address: HostPhys(tag.address()),
        pitch: tag.pitch(),
        width: tag.width(),
        height: tag.height(),
        bits: tag.bpp(),
        fields,
    })
}

/// The loader copies the RSDP into its information, behind the 8-byte tag header.
fn rsdp(parsed: &BootInformation<'_>) -> Option<HostPhys> {
    const TAG_HEADER: u64 = 8;
    let tag = parsed
        .rsdp_v2_tag()
        .map(|tag| core::ptr::from_ref(tag).addr())
        .or_else(|| {
            parsed
                .rsdp_v1_tag()
                .map(|tag| core::ptr::from_ref(tag).addr())
        })?;
    Some(layout::direct_map_to_phys(tag as u64)? + TAG_HEADER)
}
