"""IA32_STAR: the selectors that SYSCALL and SYSRET load.

::

    63            48 47            32 31                             0
    +---------------+---------------+--------------------------------+
    | SYSRET CS, SS | SYSCALL CS, SS|   legacy-mode target (AMD)     |
    +---------------+---------------+--------------------------------+

SYSCALL loads fixed, flat descriptors and never looks at the GDT; neither does SYSRET. The GDT entries that the
selectors name are used later: by IRETQ, and by anything that reloads a segment register. When they differ from the
fixed values, the kernel breaks long after the mistake.

Intel's and AMD's SYSRET differ in SS. Intel's forces RPL 3 into the selector and loads a fixed descriptor. AMD's
takes the selector as it is in STAR, and leaves base, limit and attributes as they were. They need not be those
of SYSCALL: an interrupt in ring 3 loads SS with the null selector, and if that ends in another process's SYSRET,
the program gets a selector that looks right over a segment that cannot be used. 64-bit code does not notice;
32-bit code faults at its next push (Linux: X86_BUG_SYSRET_SS_ATTRS).

Where CR4.FRED is set only the selectors still come from here: SYSCALL enters by IA32_FRED_CONFIG instead of
LSTAR, and SYSRET raises #UD.

Source: Intel SDM Vol. 2B (SYSCALL, SYSRET), Vol. 3A (Fast System Calls in 64-Bit Mode); AMD APM Vol. 3
(SYSCALL, SYSRET); Linux, arch/x86/kernel/process_64.c, __switch_to().
"""

from collections.abc import Callable
from dataclasses import dataclass

from exogdb.x86.descriptor import CodeDescriptor, DataDescriptor, Descriptor
from exogdb.x86.selector import Selector

__all__ = ["Star", "StarLoad", "check_load", "check_star", "decode_star"]


@dataclass(frozen=True)
class StarLoad:
    """One selector that an instruction loads. `instruction` and `register` name it, `bits` is the mode it
    enters.
    """

    instruction: str
    register: str
    selector: Selector
    dpl: int
    bits: int


@dataclass(frozen=True)
class Star:
    """IA32_STAR decoded. Selectors are as the CPU loads them, on Intel: with RPL 3 forced by SYSRET.

    `sysret_ss_amd` is the SS that AMD's SYSRET loads: its RPL is what software wrote.
    """

    value: int
    syscall_cs: Selector
    syscall_ss: Selector
    sysret64_cs: Selector
    sysret32_cs: Selector
    sysret_ss: Selector
    sysret_ss_amd: Selector
    legacy_eip: int

    @property
    def loads(self) -> tuple[StarLoad, ...]:
        """What each instruction loads, in the order SYSCALL, SYSRETQ, SYSRETL."""
        return (
            StarLoad("SYSCALL", "CS", self.syscall_cs, 0, 64),
            StarLoad("SYSCALL", "SS", self.syscall_ss, 0, 64),
            StarLoad("SYSRETQ", "CS", self.sysret64_cs, 3, 64),
            StarLoad("SYSRETQ/L", "SS", self.sysret_ss, 3, 64),
            StarLoad("SYSRETL", "CS", self.sysret32_cs, 3, 32),
        )


def decode_star(value: int) -> Star:
    """The selectors in IA32_STAR.

    >>> star = decode_star(0x0018000800000000)
    >>> [hex(s.value) for s in (star.syscall_cs, star.syscall_ss, star.sysret64_cs, star.sysret32_cs)]
    ['0x8', '0x10', '0x2b', '0x1b']
    >>> hex(star.sysret_ss.value), hex(star.sysret_ss_amd.value)
    ('0x23', '0x20')
    """
    syscall, sysret = value >> 32 & 0xFFFF, value >> 48 & 0xFFFF
    return Star(
        value=value,
        syscall_cs=Selector(syscall & 0xFFFC),
        syscall_ss=Selector(syscall + 8 & 0xFFFF),
        sysret64_cs=Selector(sysret + 16 & 0xFFFF | 3),
        sysret32_cs=Selector(sysret | 3),
        sysret_ss=Selector(sysret + 8 & 0xFFFF | 3),
        sysret_ss_amd=Selector(sysret + 8 & 0xFFFF),
        legacy_eip=value & 0xFFFFFFFF,
    )


def _check_code(load: StarLoad, descriptor: Descriptor) -> list[str]:
    if not isinstance(descriptor, CodeDescriptor):
        return [f"is {descriptor.kind}, not a code segment"]
    problems = []
    if load.bits == 64 and not descriptor.long:
        problems.append("has L = 0: not a 64-bit code segment")
    if load.bits == 64 and descriptor.long and descriptor.default_32:
        problems.append("has L = 1 and D = 1, which is reserved")
    if load.bits == 32 and descriptor.long:
        problems.append("has L = 1: the IRETQ of an interrupt would go on with the 32-bit program in 64-bit mode")
    if load.bits == 32 and not descriptor.long and not descriptor.default_32:
        problems.append("has D = 0: the IRETQ of an interrupt would go on with the 32-bit program in 16-bit mode")
    if descriptor.conforming:
        problems.append("is conforming, SYSCALL and SYSRET load a non-conforming one")
    return problems


def _check_data(load: StarLoad, descriptor: Descriptor) -> list[str]:
    if not isinstance(descriptor, DataDescriptor):
        return [f"is {descriptor.kind}, not a data segment"]
    return (
        []
        if descriptor.writable
        else [f"is a read-only data segment: loading SS from it raises #GP ({load.register})"]
    )


def check_load(load: StarLoad, descriptor: Descriptor | None) -> list[str]:
    """How `descriptor` differs from what `load` puts into the register by itself.

    One phrase each, to follow the selector: `has DPL 3, expected 0`. None is no descriptor: the selector is beyond
    the table's end, or in the middle of a descriptor of 16 bytes.
    """
    if descriptor is None:
        return ["names no descriptor in the table"]
    problems = _check_code(load, descriptor) if load.register == "CS" else _check_data(load, descriptor)
    if not descriptor.present:
        problems.append("is not present")
    if descriptor.kind != "null" and descriptor.dpl != load.dpl:
        problems.append(f"has DPL {descriptor.dpl}, expected {load.dpl}")
    return problems


def check_star(star: Star, find_descriptor: Callable[[Selector], Descriptor | None]) -> tuple[str, ...]:
    """What is wrong with IA32_STAR against the descriptors it names, one sentence each.

    `find_descriptor` returns the live descriptor for a selector, None outside the table. SYSRETL is checked
    only when its selector hits something else than the null descriptor: a 64-bit kernel may not use it.
    """
    findings = []
    for load in star.loads:
        if load.selector.in_ldt:
            findings.append(f"{load.instruction} {load.register} {load.selector} names the LDT")
            continue
        if load.selector.is_null:
            findings.append(f"{load.instruction} {load.register} {load.selector} is a null selector")
            continue
        descriptor = find_descriptor(load.selector)
        if load.instruction == "SYSRETL" and (descriptor is None or descriptor.kind == "null"):
            continue
        findings += [
            f"{load.instruction} {load.register} {load.selector} {problem}"
            for problem in check_load(load, descriptor)
        ]
    return (*findings, *_check_rpl(star))


def _check_rpl(star: Star) -> list[str]:
    findings = []
    syscall_rpl = star.value >> 32 & 3
    if syscall_rpl:
        findings.append(
            f"STAR[47:32] has RPL {syscall_rpl}: SYSCALL clears it in CS but not in SS ({star.syscall_ss})"
        )
    if star.sysret_ss_amd.rpl != 3:
        findings.append(
            f"STAR[63:48] has RPL {star.sysret_ss_amd.rpl}: Intel's SYSRET forces RPL 3, AMD's leaves SS at "
            f"{star.sysret_ss_amd}, and an IRETQ back to ring 3 with that SS raises #GP"
        )
    return findings
