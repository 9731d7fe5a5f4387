//! What others left in memory: nothing may be.

/// RAM that neither the builder nor the runtime uses.
const UNUSED: core::ops::Range<usize> = 2 << 20..16 << 20;
const PAGE: usize = 4096;
/// Words looked at in each page, by offset: few, as all pages are.
const WORDS: [usize; 4] = [0, 8, PAGE / 2, PAGE - 8];
const MARK: u64 = 0x5AFE_0DD5_EC2E_7001;

/// Every page is as new, and not so any more: whoever gets it next would find the marks.
pub fn look_and_leave() {
    for page in UNUSED.step_by(PAGE) {
        for word in WORDS.map(|word| page + word) {
            let place = core::ptr::with_exposed_provenance_mut::<u64>(word);
            // SAFETY: aligned, in RAM that is identity-mapped and that nothing else uses.
            let found = unsafe { place.read_volatile() };
            assert!(found == 0, "{found:#x} is left at {word:#x}");
            // SAFETY: as above.
            unsafe { place.write_volatile(MARK) };
        }
    }
}
