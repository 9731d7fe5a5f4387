//! The parts of the file that are not memory (System V ABI, chapter 4; Linux's `elf_prstatus` for the registers).

/// Pages that follow each other, in the guest and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First page number.
    pub first: u64,
    /// Pages.
    pub count: u64,
    /// Where in the file.
    pub offset: u64,
}

const PAGE: u64 = 4096;
const HEADER: u64 = 64;
const SEGMENT: u64 = 56;
/// Runs of a file: further ones are put into the last one, with the hole before them.
const MOST_RUNS: usize = 512;
const NOTE: u32 = 4;
const LOAD: u32 = 1;
const READABLE: u32 = 4;
const NT_PRSTATUS: u32 = 1;
const PRSTATUS: usize = 336;
/// `elf_prstatus`: a number for the thread, and its registers.
const PID: usize = 32;
const REGISTERS: usize = 112;

/// Save record of a vCPU (`public/arch-x86/hvm/save.h`).
const CPU: u16 = 2;
const DESCRIPTOR: usize = 8;
/// Offsets in it of what `elf_prstatus` holds, in that order: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi, nothing, rip,
/// cs, rflags, rsp, ss, bases of fs and gs, ds, es, fs, gs. Selectors have 4 bytes, the rest 8.
const FROM: [(usize, usize); 27] = [
    (632, 8),
    (624, 8),
    (616, 8),
    (608, 8),
    (544, 8),
    (520, 8),
    (600, 8),
    (592, 8),
    (584, 8),
    (576, 8),
    (512, 8),
    (528, 8),
    (536, 8),
    (552, 8),
    (560, 8),
    (0, 0),
    (640, 8),
    (736, 4),
    (648, 8),
    (568, 8),
    (756, 4),
    (832, 8),
    (840, 8),
    (740, 4),
    (744, 4),
    (748, 4),
    (752, 4),
];

/// The registers of all vCPUs in a domain's save records, as notes. What is malformed is left out.
pub fn notes(context: &[u8]) -> Vec<u8> {
    let mut notes = Vec::new();
    let mut rest = context;
    while let Some((descriptor, after)) = rest.split_at_checked(DESCRIPTOR) {
        let kind = u16::from_le_bytes([descriptor[0], descriptor[1]]);
        let vcpu = u16::from_le_bytes([descriptor[2], descriptor[3]]);
        let length = [descriptor[4], descriptor[5], descriptor[6], descriptor[7]];
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let Some((record, after)) = after.split_at_checked(length) else {
            break;
        };
        if kind == CPU {
            notes.extend(note(vcpu, record));
        }
        rest = after;
    }
    notes
}

fn note(vcpu: u16, record: &[u8]) -> Vec<u8> {
    const NAME: &[u8; 8] = b"CORE\0\0\0\0";
    let mut status = vec![0; PRSTATUS];
    put(&mut status, PID, &(u32::from(vcpu) + 1).to_le_bytes());
    for (nth, (from, size)) in FROM.into_iter().enumerate() {
        if let Some(bytes) = record.get(from..from + size) {
            put(&mut status, REGISTERS + 8 * nth, bytes);
        }
    }
    let mut note = Vec::new();
    for word in [5, PRSTATUS as u32, NT_PRSTATUS] {
        note.extend(word.to_le_bytes());
    }
    note.extend(NAME);
    note.extend(status);
    note
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Where memory begins in the file: behind header, segments and notes, whatever number of segments there will be.
pub fn data_start(notes: usize) -> u64 {
    (notes_start() + notes as u64).next_multiple_of(PAGE)
}

const fn notes_start() -> u64 {
    HEADER + (MOST_RUNS as u64 + 1) * SEGMENT
}

/// Where in the file a page goes; `end` is the end of those that are there. Pages come in ascending order.
pub fn place(runs: &mut Vec<Run>, gfn: u64, end: u64) -> u64 {
    let full = runs.len() >= MOST_RUNS;
    match runs.last_mut() {
        Some(run) if full || run.first + run.count == gfn => {
            run.count = gfn + 1 - run.first;
            run.offset + (gfn - run.first) * PAGE
        }
        _ => {
            runs.push(Run {
                first: gfn,
                count: 1,
                offset: end,
            });
            end
        }
    }
}

/// Everything before the memory.
pub fn head(runs: &[Run], notes: &[u8]) -> Vec<u8> {
    let segments = runs.len() as u16 + 1;
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    // A core file (4) of x86-64 (62).
    for half in [4_u16, 62] {
        head.extend(half.to_le_bytes());
    }
    head.extend(1_u32.to_le_bytes());
    for word in [0, HEADER, 0] {
        head.extend(word.to_le_bytes());
    }
    head.extend(0_u32.to_le_bytes());
    for half in [HEADER as u16, SEGMENT as u16, segments, 0, 0, 0] {
        head.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, offset: u64, address: u64, size: u64, align: u64| {
        head.extend(kind.to_le_bytes());
        head.extend(READABLE.to_le_bytes());
        for word in [offset, address, address, size, size, align] {
            head.extend(word.to_le_bytes());
        }
    };
    segment(NOTE, notes_start(), 0, notes.len() as u64, 4);
    for run in runs {
        segment(LOAD, run.offset, run.first * PAGE, run.count * PAGE, PAGE);
    }
    head.resize(notes_start() as usize, 0);
    head.extend(notes);
    head
}
