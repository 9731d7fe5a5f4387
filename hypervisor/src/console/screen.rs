//! The screen, for machines without a serial port: VGA text or the loader's linear framebuffer, until dom0 takes it.

use font8x8::legacy::BASIC_LEGACY;
use spin::Mutex;

use crate::boot::loader::Framebuffer;
use crate::memory::paging::{self, Permission};

/// Pixels of a character cell: the font's rows are drawn twice.
const CELL: (u32, u32) = (8, 16);
const GREY_ON_BLACK: u8 = 0x07;

struct Screen {
    memory: *mut u8,
    shape: Framebuffer,
    columns: u32,
    rows: u32,
    column: u32,
    row: u32,
}

// SAFETY: the pointer is to video memory that stays mapped; the lock makes each user the only one.
unsafe impl Send for Screen {}

static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// Takes the screen over and clears it. Needs the final page tables.
pub fn open(shape: Framebuffer) {
    let (columns, rows) = match shape.fields {
        None => (shape.width, shape.height),
        Some(_) => (shape.width / CELL.0, shape.height / CELL.1),
    };
    let bytes_fit = shape.fields.is_none() || matches!(shape.bits, 16 | 24 | 32);
    if columns == 0 || rows == 0 || !bytes_fit {
        return;
    }
    let size = u64::from(shape.pitch) * u64::from(shape.height);
    let memory = paging::map_device(shape.address, size, Permission::Device);
    let screen = Screen {
        memory,
        shape,
        columns,
        rows,
        column: 0,
        row: 0,
    };
    (0..rows).for_each(|row| screen.clear(row));
    *SCREEN.lock() = Some(screen);
}

/// Leaves the screen to dom0.
pub fn close() {
    *SCREEN.lock() = None;
}

/// Writes text; lines wrap, and the page starts over at the top when it is full, as scrolling reads slow memory.
pub fn write(bytes: &[u8]) {
    if let Some(screen) = SCREEN.lock().as_mut() {
        bytes.iter().for_each(|&byte| screen.put(byte));
    }
}

/// # Safety
/// As for [`super::break_locks`].
pub unsafe fn force_unlock() {
    // SAFETY: the caller promises that nobody else is between lock and unlock.
    unsafe { SCREEN.force_unlock() }
}

impl Screen {
    fn put(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            b'\n' => {
                self.column = 0;
                self.row = (self.row + 1) % self.rows;
                self.clear(self.row);
            }
            _ => {
                if self.column == self.columns {
                    self.put(b'\n');
                }
                self.draw(self.column, self.row, byte);
                self.column += 1;
            }
        }
    }

    fn clear(&self, row: u32) {
        (0..self.columns).for_each(|column| self.draw(column, row, b' '));
    }

    fn draw(&self, column: u32, row: u32, byte: u8) {
        if self.shape.fields.is_none() {
            let offset = row * self.shape.pitch + column * 2;
            self.poke(offset, byte);
            self.poke(offset + 1, GREY_ON_BLACK);
            return;
        }
        let glyph = BASIC_LEGACY
            .get(usize::from(byte))
            .unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
        let pixel = u32::from(self.shape.bits / 8);
        for line in 0..CELL.1 {
            let bits = glyph[line as usize / 2];
            let start = (row * CELL.1 + line) * self.shape.pitch + column * CELL.0 * pixel;
            for place in 0..CELL.0 {
                let shade = if bits >> place & 1 != 0 { 0xFF } else { 0 };
                (0..pixel).for_each(|part| self.poke(start + place * pixel + part, shade));
            }
        }
    }

    fn poke(&self, offset: u32, value: u8) {
        // SAFETY: rows and columns are within the shape whose memory `open` mapped.
        unsafe { self.memory.add(offset as usize).write_volatile(value) }
    }
}
