"""RFLAGS by name, and what IA32_FMASK does to it at SYSCALL.

SYSCALL puts RFLAGS into R11, without RF on AMD, and then clears RF and what FMASK says. An interrupt or
exception clears TF, NT, RF and VM by itself, and IF through an interrupt gate. Neither clears AC or DF unasked:
handlers need CLAC and CLD as much as the entry stub.

SYSCALL and SYSRET look at TF when they are done, other instructions before they begin. So FMASK with TF set
keeps #DB out of the kernel, and a SYSRET that restores TF raises #DB before the program's next instruction,
IRETQ only after it.

Source: Intel SDM Vol. 1 (EFLAGS Register), Vol. 2B (SYSCALL, SYSRET), Vol. 3A (Flag Usage By Exception- or
Interrupt-Handler Procedure); AMD APM Vol. 2 (SYSCALL and SYSRET); Linux, arch/x86/entry/entry_64.S (SYSRET and
TF).
"""

from dataclasses import dataclass

from exogdb.x86.flags import Flag, decode_flags

__all__ = [
    "DANGEROUS_AT_ENTRY",
    "Fmask",
    "RFLAGS",
    "check_fmask",
    "decode_fmask",
    "decode_rflags",
    "rflags_after_sysret",
]

_EFLAGS = "SDM Vol. 1, EFLAGS Register"
IOPL_SHIFT, IOPL_MASK = 12, 0x3000
RESERVED_ONE = 0x2

RFLAGS: tuple[Flag, ...] = (
    Flag("CF", 0, "carry", _EFLAGS),
    Flag("PF", 2, "parity", _EFLAGS),
    Flag("AF", 4, "auxiliary carry", _EFLAGS),
    Flag("ZF", 6, "zero", _EFLAGS),
    Flag("SF", 7, "sign", _EFLAGS),
    Flag("TF", 8, "trap: #DB after each instruction", _EFLAGS),
    Flag("IF", 9, "maskable interrupts enabled", _EFLAGS),
    Flag("DF", 10, "string instructions go down", _EFLAGS),
    Flag("OF", 11, "overflow", _EFLAGS),
    Flag("NT", 14, "nested task", _EFLAGS),
    Flag("RF", 16, "resume: no instruction breakpoint on the next instruction", _EFLAGS),
    Flag("VM", 17, "virtual-8086 mode", _EFLAGS),
    Flag("AC", 18, "alignment check; at CPL 0 with SMAP: access to user pages allowed", _EFLAGS),
    Flag("VIF", 19, "virtual interrupt flag", _EFLAGS),
    Flag("VIP", 20, "virtual interrupt pending", _EFLAGS),
    Flag("ID", 21, "can be changed where there is CPUID", _EFLAGS),
)

# The flags that ring 3 controls and that hurt a kernel which starts to run with them set.
DANGEROUS_AT_ENTRY: dict[str, str] = {
    "TF": "single-stepping user code raises #DB at the first kernel instruction, "
    "with the user's GS base, and on the user's stack unless #DB has an IST",
    "IF": "an interrupt can arrive before the entry stub has switched GS base and stack",
    "DF": "string instructions in the kernel run backwards (the ABI promises DF = 0)",
    "NT": "an IRETQ in the kernel raises #GP while NT is set",
    "AC": "SMAP, if it is on, starts suspended: the kernel may access user pages",
}


def decode_rflags(value: int) -> tuple[str, ...]:
    """The flags set in `value`, `IOPL=n` if the I/O privilege level is not 0, then unknown bits as hex.

    Bit 1 always reads as 1 and is not listed.

    >>> decode_rflags(0x246)
    ('PF', 'ZF', 'IF')
    >>> decode_rflags(0x80003202)
    ('IF', 'IOPL=3', '0x80000000')
    """
    names = list(decode_flags(value, RFLAGS, known=IOPL_MASK | RESERVED_ONE))
    iopl = (value & IOPL_MASK) >> IOPL_SHIFT
    if iopl:
        unknown_last = bool(names) and names[-1].startswith("0x")
        names.insert(len(names) - unknown_last, f"IOPL={iopl}")
    return tuple(names)


def rflags_after_sysret(r11: int) -> int:
    """RFLAGS that SYSRET loads from R11: RF, VM and the reserved bits are cleared, bit 1 set (SDM Vol. 2B).

    IF and IOPL are loaded like the others, whatever IOPL was: SYSRET runs at CPL 0. A kernel that lets anybody
    change the saved R11, a debugger or a signal handler, has to look at them itself.

    >>> hex(rflags_after_sysret(0xFFFFFFFFFFFFFFFF))
    '0x3c7fd7'
    """
    return (r11 & 0x3C7FD7) | RESERVED_ONE


@dataclass(frozen=True)
class Fmask:
    """IA32_FMASK: `clears` are names of RFLAGS bits; `dangerous` maps those that must not be left to the harm."""

    value: int
    clears: tuple[str, ...]
    dangerous: dict[str, str]


def decode_fmask(value: int) -> Fmask:
    """What SYSCALL does to RFLAGS. A bit set in IA32_FMASK is cleared in RFLAGS.

    >>> decode_fmask(0x200).clears, sorted(decode_fmask(0x200).dangerous)
    (('IF',), ['AC', 'DF', 'NT', 'TF'])
    >>> decode_fmask(0x257fd5).dangerous
    {}
    """
    masks = {flag.name: flag.mask for flag in RFLAGS}
    clears = list(decode_flags(value, RFLAGS, known=IOPL_MASK))
    if value & IOPL_MASK:
        whole = value & IOPL_MASK == IOPL_MASK
        clears.append("IOPL" if whole else f"IOPL & {(value & IOPL_MASK) >> IOPL_SHIFT}")
    dangerous = {name: harm for name, harm in DANGEROUS_AT_ENTRY.items() if not value & masks[name]}
    return Fmask(value, tuple(clears), dangerous)


def check_fmask(value: int) -> tuple[str, ...]:
    """One sentence for each flag that ring 3 can carry into the kernel with harm."""
    fmask = decode_fmask(value)
    return tuple(f"{name} is not cleared: {harm}" for name, harm in fmask.dangerous.items())
