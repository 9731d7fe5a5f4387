//! The command line: words, some of the form `name=value`.

use core::ffi::CStr;

use oxen_abi::start_info::MAGIC;

unsafe extern "C" {
    static start_info_address: u64;
}

/// The whole line; empty where there is none.
pub fn get() -> &'static str {
    const COMMAND_LINE: usize = 24;
    // SAFETY: the entry code stored where the loader put the start information, which is identity-mapped and stays.
    unsafe {
        let address = (&raw const start_info_address).read() as usize;
        let info = core::ptr::with_exposed_provenance::<u8>(address);
        if address == 0 || info.cast::<u32>().read_unaligned() != MAGIC {
            return "";
        }
        let line = info.add(COMMAND_LINE).cast::<u64>().read_unaligned() as usize;
        if line == 0 {
            return "";
        }
        let text = CStr::from_ptr(core::ptr::with_exposed_provenance(line));
        text.to_str().unwrap_or_default()
    }
}

/// The value of `name=value`, if it is there.
pub fn value(name: &str) -> Option<&'static str> {
    get()
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// A number's value, or the given one.
pub fn number(name: &str, otherwise: u64) -> u64 {
    value(name)
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}
