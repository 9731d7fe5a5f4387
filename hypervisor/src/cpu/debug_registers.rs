//! DR0 to DR3: breakpoints are the guest's, the hypervisor has none.

use core::arch::asm;

/// Reads the four.
pub fn save() -> [u64; 4] {
    let mut values = [0; 4];
    let [a, b, c, d] = &mut values;
    // SAFETY: reading debug registers has no effect.
    unsafe {
        asm!(
            "mov {}, dr0",
            "mov {}, dr1",
            "mov {}, dr2",
            "mov {}, dr3",
            out(reg) * a,
            out(reg) * b,
            out(reg) * c,
            out(reg) * d,
            options(nomem, nostack)
        );
    }
    values
}

/// Writes the four. DR7 decides whether they mean anything, and it is the guest's only in guest mode.
pub fn load(&[a, b, c, d]: &[u64; 4]) {
    // SAFETY: see above.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) a, in(reg) b, in(reg) c, in(reg) d, options(nomem, nostack));
    }
}
