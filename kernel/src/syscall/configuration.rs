//! Configuration: the model-specific registers that SYSCALL and SYSRET use.
//!
//! The default build writes exactly the values of the design. Every other value here belongs to a variant
//! (`kernel/README.md`): `today` follows the kernel's later shape, the rest are mistakes to be found.

use crate::arch::cpu::{rdmsr, wrmsr, IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_LSTAR, IA32_STAR};
#[cfg(variant = "lstar-differs")]
use crate::arch::percpu::this_cpu;

const EFER_SCE: u64 = 1 << 0;
const IF: u64 = 1 << 9;
/// TF, IF, DF, NT, RF and AC: what `today` clears.
const ALL_DANGEROUS_FLAGS: u64 = 0x5_4700;
const TF_DF_AC: u64 = 0x4_0500;

/// STAR: SYSCALL loads CS and SS from bits 32-47 (+0, +8), SYSRET from bits 48-63 (+16, +8).
const STAR: u64 =
    if cfg!(variant = "star-off-by-one") { (0x08 << 32) | (0x20 << 48) } else { (0x08 << 32) | (0x18 << 48) };

/// FMASK: the RFLAGS that SYSCALL clears. The design clears IF alone.
const FMASK: u64 = if cfg!(variant = "fmask-without-if") {
    ALL_DANGEROUS_FLAGS & !IF
} else if cfg!(variant = "fmask-leaves-df-tf-ac") {
    ALL_DANGEROUS_FLAGS & !TF_DF_AC
} else if cfg!(variant = "today") {
    ALL_DANGEROUS_FLAGS
} else {
    IF
};

extern "C" {
    #[cfg(not(variant = "today"))]
    #[allow(dead_code)] // the variants with a wrong LSTAR do not use it
    fn syscall_entry();
    #[cfg(variant = "today")]
    fn syscall_entry_asm();
    #[cfg(variant = "today")]
    fn syscall_entry_compatibility();
    #[cfg(variant = "lstar-differs")]
    fn syscall_entry_other();
}

/// What LSTAR gets.
fn entry_address() -> u64 {
    #[cfg(variant = "lstar-noncanonical")]
    return 0x0000_8000_0000_0000;
    #[cfg(variant = "lstar-unmapped")]
    return 0xffff_ffff_a000_0000;
    #[cfg(variant = "lstar-user-page")]
    return 0x1000_1000;
    #[cfg(variant = "lstar-differs")]
    if this_cpu().cpu_id() == 1 {
        return syscall_entry_other as *const () as u64;
    }
    #[cfg(variant = "today")]
    return syscall_entry_asm as *const () as u64;
    #[cfg(not(any(
        variant = "today",
        variant = "lstar-noncanonical",
        variant = "lstar-unmapped",
        variant = "lstar-user-page"
    )))]
    return syscall_entry as *const () as u64;
}

/// Switches SYSCALL and SYSRET on for the calling CPU.
#[no_mangle]
#[inline(never)]
pub fn init_syscall() {
    // SAFETY: STAR names this CPU's GDT entries, LSTAR a stub that saves what it must, FMASK at least IF (but for
    // the variants, which are there to be wrong).
    unsafe {
        // Enable SYSCALL/SYSRET in EFER
        if !cfg!(variant = "no-sce") {
            let efer = rdmsr(IA32_EFER);
            wrmsr(IA32_EFER, efer | EFER_SCE);
        }

        // STAR: segment selectors
        wrmsr(IA32_STAR, STAR);

        // LSTAR: system-call entry point
        wrmsr(IA32_LSTAR, entry_address());

        // CSTAR: entry from compatibility mode, which the design leaves at 0
        #[cfg(variant = "today")]
        wrmsr(IA32_CSTAR, syscall_entry_compatibility as *const () as u64);
        #[cfg(not(variant = "today"))]
        wrmsr(IA32_CSTAR, 0);

        // FMASK: flags to clear on system call
        wrmsr(IA32_FMASK, FMASK);
    }
}
