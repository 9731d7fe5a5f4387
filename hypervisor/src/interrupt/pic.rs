//! The two 8259 interrupt controllers: moved out of the way of the exceptions and masked, for good.

use x86_64::instructions::port::Port;

/// Where their vectors go, should one ever fire: spurious ones do in spite of the mask.
const VECTORS: [(u16, u8); 2] = [(0x20, 0x20), (0xA0, 0x28)];

/// Silences both.
pub fn silence() {
    const INITIALIZE: u8 = 0x11;
    const MODE_8086: u8 = 0x01;
    const ALL_MASKED: u8 = 0xFF;
    for (wiring, (command, vector)) in [0x04, 0x02].into_iter().zip(VECTORS) {
        // SAFETY: the controllers' own ports; nothing relies on them.
        unsafe {
            Port::<u8>::new(command).write(INITIALIZE);
            Port::<u8>::new(command + 1).write(vector);
            Port::<u8>::new(command + 1).write(wiring);
            Port::<u8>::new(command + 1).write(MODE_8086);
            Port::<u8>::new(command + 1).write(ALL_MASKED);
        }
    }
}

/// The edge/level control registers: a bit for each interrupt, set where it is level-triggered. All ones where there are
/// none.
pub fn edge_level() -> u16 {
    const REGISTERS: [u16; 2] = [0x4D0, 0x4D1];
    // SAFETY: reading them has no effect.
    let [low, high] = REGISTERS.map(|port| unsafe { Port::<u8>::new(port).read() });
    u16::from_le_bytes([low, high])
}
