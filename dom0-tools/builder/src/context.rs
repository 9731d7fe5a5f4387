//! Save records that put the first vCPU at a kernel's PVH entry (`public/arch-x86/hvm/save.h`).

const HEADER: u16 = 1;
const CPU: u16 = 2;
const END: u16 = 0;
const DESCRIPTOR_SIZE: usize = 8;
const HEADER_SIZE: usize = 24;
const CPU_SIZE: usize = 1032;
const MAGIC: u32 = 0x5438_1286;
const VERSION: u32 = 1;

/// Byte offsets in `hvm_hw_cpu`.
mod cpu {
    pub const RBX: usize = 520;
    pub const RIP: usize = 640;
    pub const RFLAGS: usize = 648;
    pub const CR0: usize = 656;
    pub const DR6: usize = 720;
    pub const DR7: usize = 728;
    /// Limits of CS, DS, ES, FS, GS and SS, u32 each.
    pub const LIMITS: usize = 768;
    pub const TR_LIMIT: usize = 792;
    /// Access rights in the same order.
    pub const RIGHTS: usize = 888;
    pub const TR_RIGHTS: usize = 912;
}

/// Access rights in the packed form: flat 32-bit code, flat data, busy 32-bit TSS.
const CODE: u32 = 0xC9B;
const DATA: u32 = 0xC93;
const TASK: u32 = 0x8B;
const TASK_LIMIT: u32 = 0x67;
/// PE and ET.
const CR0: u64 = 0x11;

/// HEADER, CPU record of vCPU 0 and END: protected mode without paging, flat segments, EIP at `entry`, EBX at the start
/// information. The other vCPUs stay down.
pub fn pvh_entry(entry: u32, start_info: u32) -> Vec<u8> {
    let mut header = [0; HEADER_SIZE];
    put(&mut header, 0, MAGIC);
    put(&mut header, 4, VERSION);

    let mut record = [0; CPU_SIZE];
    put(&mut record, cpu::RBX, start_info);
    put(&mut record, cpu::RIP, entry);
    // Bit 1 is always set.
    put(&mut record, cpu::RFLAGS, 2);
    record[cpu::CR0..cpu::CR0 + 8].copy_from_slice(&CR0.to_le_bytes());
    put(&mut record, cpu::DR6, 0xFFFF_0FF0);
    put(&mut record, cpu::DR7, 0x400);
    for (segment, rights) in [CODE, DATA, DATA, DATA, DATA, DATA].into_iter().enumerate() {
        put(&mut record, cpu::LIMITS + 4 * segment, u32::MAX);
        put(&mut record, cpu::RIGHTS + 4 * segment, rights);
    }
    put(&mut record, cpu::TR_LIMIT, TASK_LIMIT);
    put(&mut record, cpu::TR_RIGHTS, TASK);

    let mut bytes = Vec::with_capacity(3 * DESCRIPTOR_SIZE + HEADER_SIZE + CPU_SIZE);
    append(&mut bytes, HEADER, &header);
    append(&mut bytes, CPU, &record);
    append(&mut bytes, END, &[]);
    bytes
}

fn put(record: &mut [u8], offset: usize, value: u32) {
    record[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Appends a record: kind u16, instance (vCPU) u16, length u32, content.
fn append(bytes: &mut Vec<u8>, kind: u16, content: &[u8]) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(0_u16.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn the_records_follow_each_other() {
        let bytes = pvh_entry(0x100_0000, 0x5000);
        assert_eq!(bytes.len(), 8 + 24 + 8 + 1032 + 8);
        assert_eq!((number(&bytes, 0), number(&bytes, 4)), (1, 24));
        assert_eq!((number(&bytes, 32), number(&bytes, 36)), (2, 1032));
        assert_eq!((number(&bytes, 1072), number(&bytes, 1076)), (0, 0));
    }

    #[test]
    fn the_entry_state_is_the_one_of_the_abi() {
        let bytes = pvh_entry(0x100_0000, 0x5000);
        let at = |offset: usize| number(&bytes, 40 + offset);
        assert_eq!(
            (at(520), at(640), at(648), at(656)),
            (0x5000, 0x100_0000, 2, 0x11)
        );
        // CS, DS, ES, SS: limits, then rights.
        assert_eq!([768, 772, 776, 788].map(at), [u32::MAX; 4]);
        assert_eq!([888, 892, 896, 908].map(at), [0xC9B, 0xC93, 0xC93, 0xC93]);
        assert_eq!((at(792), at(912), at(916)), (0x67, 0x8B, 0));
        // CR4 and EFER.
        assert_eq!((at(680), at(992)), (0, 0));
    }
}
