//! Another domain: made by `domctl`, its memory seen through the window. Its only vCPU does what it finds in its command page.

use core::arch::global_asm;

use oxen_abi::memory as abi;
use oxen_abi::numbers;
use oxen_guest_runtime::domain::{self, Limits};

use crate::calls::{memory_op, remove_from_physmap, yield_now};
use crate::memory::{PAGE, read, window, write};
use crate::table::Table;

// 32-bit code without paging; EBP: the command page. Word 0: 0 nothing, 1 a hypercall, 2 a write, 3 a read; then the number,
// three arguments, and the result.
global_asm!(
    ".section .rodata",
    ".code32",
    "peer_code:",
    "1: mov eax, [ebp]",
    "   test eax, eax",
    "   jne 2f",
    "   mov eax, 29",  // sched_op
    "   xor ebx, ebx", // yield
    "   vmcall",
    "   jmp 1b",
    "2: mov ebx, [ebp + 8]",
    "   mov ecx, [ebp + 12]",
    "   mov edx, [ebp + 16]",
    "   cmp eax, 2",
    "   je 3f",
    "   ja 4f",
    "   mov eax, [ebp + 4]",
    "   vmcall",
    "   jmp 5f",
    "3: mov [ebx], ecx",
    "   jmp 5f",
    "4: mov eax, [ebx]",
    "5: mov [ebp + 20], eax",
    "   mov dword ptr [ebp], 0",
    "   jmp 1b",
    "peer_code_end:",
    ".code64",
    ".section .text",
);

unsafe extern "C" {
    static peer_code: u8;
    static peer_code_end: u8;
}

/// Pages of memory that it has: code, commands, and others to use.
pub const PAGES: u64 = 16;
/// Its first page.
const FIRST: u64 = 0x100;
/// Pages of the window that one peer takes.
const STRIDE: u64 = 32;

/// The domain.
pub struct Peer {
    /// Its number.
    pub id: u16,
    slot: u64,
}

impl Peer {
    /// Makes it, with memory and a vCPU that runs. `slot`: its part of the window.
    pub fn new(slot: u64, limits: Limits) -> Self {
        let (result, id) = domain::create(limits);
        assert!(result == 0, "createdomain: {result}");
        let peer = Self { id, slot };
        let list: [u64; PAGES as usize] = core::array::from_fn(|index| FIRST + index as u64);
        domain::populate(id, &list);
        peer.open_window(&list);
        peer.start();
        peer
    }

    /// Its memory by foreign mapping, and its grant table by `XENMEM_acquire_resource` behind that.
    fn open_window(&self, list: &[u64; PAGES as usize]) {
        let places: [u64; PAGES as usize] =
            core::array::from_fn(|index| self.window(index as u64) / PAGE);
        domain::map_foreign(self.id, list, &places);
        let place = self.window(PAGES) / PAGE;
        let mut resource = [
            u64::from(self.id) | u64::from(abi::resource::GRANT_TABLE) << 16,
            1,
            0,
            &raw const place as u64,
        ];
        memory_op(abi::cmd::ACQUIRE_RESOURCE, &mut resource);
    }

    fn start(&self) {
        let (from, to) = (&raw const peer_code, &raw const peer_code_end);
        // SAFETY: the code's own bounds, and a page of the other domain's that is mapped and that nobody else uses yet.
        unsafe {
            let length = to.offset_from_unsigned(from);
            let page = core::ptr::with_exposed_provenance_mut::<u8>(self.window(0) as usize);
            page.copy_from_nonoverlapping(from, length);
        }
        domain::start(self.id, self.page(0), &[(domain::EBP, self.page(1))]);
    }

    /// Where this domain sees its n-th page.
    pub const fn window(&self, index: u64) -> u64 {
        window(STRIDE * (self.slot + 1) + index)
    }

    /// Address of its n-th page in its own memory.
    pub const fn page(&self, index: u64) -> u64 {
        (FIRST + index) * PAGE
    }

    /// Number of its n-th page.
    pub const fn gfn(&self, index: u64) -> u64 {
        FIRST + index
    }

    /// Its grant table.
    pub const fn table(&self) -> Table {
        Table(self.window(PAGES))
    }

    /// Puts bytes into its n-th page.
    pub fn fill(&self, index: u64, bytes: &[u8]) {
        for (at, word) in bytes.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            write(self.window(index) + at as u64 * 4, word);
        }
    }

    /// A 16-bit field in its n-th page.
    pub fn half(&self, index: u64, at: usize) -> i16 {
        let word = read(self.window(index) + (at as u64 & !3));
        (word >> (8 * (at % 4))) as i16
    }

    fn command(&self, kind: u32, words: [u32; 4]) -> u32 {
        let page = self.window(1);
        for (index, word) in words.into_iter().enumerate() {
            write(page + 4 + index as u64 * 4, word);
        }
        write(page, kind);
        while read(page) != 0 {
            yield_now();
        }
        read(page + 20)
    }

    /// A `grant_table_op` of its on `count` elements at its n-th page.
    pub fn grant_table_op(&self, command: u64, index: u64, count: u32) -> i32 {
        let words = [
            numbers::GRANT_TABLE_OP as u32,
            command as u32,
            self.page(index) as u32,
            count,
        ];
        self.command(1, words) as i32
    }

    /// It writes a word.
    pub fn store(&self, address: u64, value: u32) {
        self.command(2, [0, address as u32, value, 0]);
    }

    /// It reads a word.
    pub fn load(&self, address: u64) -> u32 {
        self.command(3, [0, address as u32, 0, 0])
    }

    /// Lets go of its memory and its table.
    pub fn close_window(&self) {
        for index in 0..=PAGES {
            let result = remove_from_physmap(self.window(index) / PAGE);
            assert!(result == 0, "remove_from_physmap: {result}");
        }
    }

    /// Ends it; it lingers while others use its pages.
    pub fn destroy(&self) {
        domain::destroy(self.id);
    }
}
