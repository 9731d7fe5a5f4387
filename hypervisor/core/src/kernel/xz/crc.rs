//! Checksums of xz blocks.

/// Tables for eight bytes at a time; table *k* advances a byte over *k* further zero bytes.
const CRC32: [[u32; 256]; 8] = crc32_tables();
const CRC64: [u64; 256] = crc64_table();

/// CRC-32 as in IEEE 802.3, bit-reflected.
pub fn crc32(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let crc = steps.iter().fold(u32::MAX, |crc, step| {
        let [a, b, c, d] =
            (crc ^ u32::from_le_bytes([step[0], step[1], step[2], step[3]])).to_le_bytes();
        CRC32[7][usize::from(a)]
            ^ CRC32[6][usize::from(b)]
            ^ CRC32[5][usize::from(c)]
            ^ CRC32[4][usize::from(d)]
            ^ CRC32[3][usize::from(step[4])]
            ^ CRC32[2][usize::from(step[5])]
            ^ CRC32[1][usize::from(step[6])]
            ^ CRC32[0][usize::from(step[7])]
    });
    !rest.iter().fold(crc, |crc, &byte| {
        crc >> 8 ^ CRC32[0][usize::from(crc as u8 ^ byte)]
    })
}

/// CRC-64 as in ECMA-182, bit-reflected.
pub fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(u64::MAX, |crc, &byte| {
        crc >> 8 ^ CRC64[usize::from(crc as u8 ^ byte)]
    })
}

const fn crc32_tables() -> [[u32; 256]; 8] {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut tables = [[0; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let crc = tables[table - 1][index];
            tables[table][index] = crc >> 8 ^ tables[0][crc as usize & 0xFF];
            index += 1;
        }
        table += 1;
    }
    tables
}

const fn crc64_table() -> [u64; 256] {
    const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_are_the_catalogued_ones() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc32(b""), 0);
    }
}
