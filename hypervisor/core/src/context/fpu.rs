//! The CPU_XSAVE record (`hvm_hw_cpu_xsave`): extended state in the standard format of XSAVE (SDM vol. 1, 13.4).

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

use super::check::Limits;
use super::cpu::LEGACY_STATE;
use super::{long, word};

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0b111 << 5;

/// MXCSR in the legacy state.
const MXCSR: usize = 24;
/// Bytes of the header behind the legacy state.
const HEADER: usize = 64;

/// Extended state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The components that the guest has turned on.
    pub xcr0: u64,
    /// Legacy state, header and components.
    pub area: Vec<u8>,
}

impl Extended {
    /// Reads and checks a record.
    ///
    /// # Errors
    /// `OpNotSupp` for the compacted format or a CPU without XSAVE, `Inval` for what XRSTOR would refuse, `NoMem`.
    pub fn read(payload: &[u8], limits: &Limits) -> Result<Self, Errno> {
        const LEAST: usize = record::XSAVE_AREA + LEGACY_STATE + HEADER;
        if limits.xcr0 == 0 {
            return Err(Errno::OpNotSupp);
        }
        if payload.len() < LEAST {
            return Err(Errno::Inval);
        }
        let (xcr0, ever) = (
            long(payload, record::XSAVE_XCR0),
            long(payload, record::XSAVE_XCR0_EVER),
        );
        let area = &payload[record::XSAVE_AREA..];
        let present = long(area, LEGACY_STATE);
        let rest = &area[LEGACY_STATE + 8..LEGACY_STATE + HEADER];
        let is_compacted = long(area, LEGACY_STATE + 8) >> 63 != 0;
        if is_compacted {
            return Err(Errno::OpNotSupp);
        }
        let size = limits.xsave_size;
        // What is beyond may be there, as nothing but zeros.
        let (area, beyond) = area.split_at(area.len().min(size));
        let fits = is_xcr0(xcr0, limits.xcr0)
            && is_xcr0(ever, limits.xcr0)
            && xcr0 & !ever == 0
            && present & !ever == 0
            && rest.iter().all(|&byte| byte == 0)
            && beyond.iter().all(|&byte| byte == 0)
            && is_mxcsr(area, limits);
        if !fits {
            return Err(Errno::Inval);
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(size).map_err(|_| Errno::NoMem)?;
        copy.extend_from_slice(area);
        // A saver that knows fewer components leaves those behind its last out.
        copy.resize(size, 0);
        Ok(Self { xcr0, area: copy })
    }

    /// The record of the state in `area`, which holds all components in `allowed`.
    pub fn to_record(xcr0: u64, allowed: u64, area: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(record::XSAVE_AREA + area.len());
        for value in [allowed, xcr0, allowed] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(area);
        bytes
    }
}

/// Whether XSETBV takes the value where the CPU has `allowed` (SDM vol. 1, 13.3).
pub const fn is_xcr0(value: u64, allowed: u64) -> bool {
    let avx_without_sse = value & AVX != 0 && value & SSE == 0;
    let part_of_avx512 = value & AVX512 != 0 && value & (AVX512 | AVX) != AVX512 | AVX;
    value & !allowed == 0 && value & X87 != 0 && !avx_without_sse && !part_of_avx512
}

/// Whether the CPU loads MXCSR from a state.
pub fn is_mxcsr(state: &[u8], limits: &Limits) -> bool {
    word(state, MXCSR) & !limits.mxcsr == 0
}
