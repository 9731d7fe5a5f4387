//! The MSR permission map (APM vol. 2, 15.11): two bits an MSR, set bits exit.

/// MSRs whose guest values the control block or VMSAVE keeps, and which guests therefore reach directly.
const DIRECT: [u32; 12] = [
    0x174,
    0x175,
    0x176, // SYSENTER_CS, _ESP, _EIP
    0x277, // PAT
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084, // STAR, LSTAR, CSTAR, SFMASK
    0xC000_0100,
    0xC000_0101,
    0xC000_0102, // FS, GS, kernel GS base
    0xC000_0103, // TSC_AUX, live while the vCPU is loaded
];

/// Bytes of the map.
pub const MAP_SIZE: usize = 8192;

/// Fills the map: everything exits but [`DIRECT`].
pub fn fill(map: &mut [u8]) {
    map.fill(0xFF);
    for index in DIRECT {
        let (base, range) = match index {
            0..0x2000 => (0, 0),
            0xC000_0000..0xC000_2000 => (0xC000_0000, 0x800),
            _ => continue,
        };
        let bit = (index - base) * 2;
        if let Some(byte) = map.get_mut(range + bit as usize / 8) {
            *byte &= !(0b11 << (bit % 8));
        }
    }
}
