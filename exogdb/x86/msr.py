"""Model-specific registers by name and number.

The name is the one of the Intel SDM, Vol. 4 where that has one, else the AMD APM's; the other manual's names
and the short ones that people type are aliases. Names are matched without regard to case, `-` as `_`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from exogdb.errors import UsageError
from exogdb.x86.apic_base import ApicBase, decode_apic_base
from exogdb.x86.efer import check_efer, decode_efer
from exogdb.x86.pat import decode_pat
from exogdb.x86.rflags import Fmask, check_fmask, decode_fmask
from exogdb.x86.star import Star, decode_star
from exogdb.x86.sysenter import SysenterCs, decode_sysenter_cs

__all__ = [
    "DecodedMsr",
    "MSRS",
    "MsrSpec",
    "SYSCALL_MSRS",
    "check_msr",
    "decode_msr",
    "find_msr",
    "parse_msr",
]

DecodedMsr: TypeAlias = tuple[str, ...] | Star | Fmask | SysenterCs | ApicBase
Decoder: TypeAlias = Callable[[int], DecodedMsr]


@dataclass(frozen=True)
class MsrSpec:
    """One register. `holds` is `flags`, `address`, `selectors`, `memory types` or `number`.

    `source` is the manual section. `stub` is the name of the register in QEMU's GDB stub, empty if it
    has none.
    """

    number: int
    name: str
    meaning: str
    source: str
    aliases: tuple[str, ...] = ()
    holds: str = "number"
    stub: str = ""
    decode: Decoder | None = field(default=None, compare=False)

    @property
    def short(self) -> str:
        """The name without its `IA32_` prefix: `LSTAR`."""
        return self.name.removeprefix("IA32_")


_VOL4 = "SDM Vol. 4, IA-32 Architectural MSRs"
_SYSCALL = "SDM Vol. 3A, Fast System Calls in 64-Bit Mode"
_SYSENTER = "SDM Vol. 2B, SYSENTER"
_SEGMENTS = "SDM Vol. 3A, Segment Loading Instructions in IA-32e Mode"
_MTRR = "SDM Vol. 3A, Memory Type Range Registers"
_MCA = "SDM Vol. 3B, Machine-Check Architecture"
_TSC = "SDM Vol. 3B, Time-Stamp Counter"
_CET = "SDM Vol. 1, Control-flow Enforcement Technology"
_SVM = "APM Vol. 2, SVM Related MSRs"
_EFER = "SDM Vol. 3A, Extended Feature Enable Register"

MSRS: tuple[MsrSpec, ...] = (
    MsrSpec(0xC0000080, "IA32_EFER", "extended features: long mode, SYSCALL, no-execute", _EFER,
            ("MSR_EFER",), "flags", "efer", decode_efer),
    MsrSpec(0xC0000081, "IA32_STAR", "selectors that SYSCALL and SYSRET load", _SYSCALL,
            ("MSR_STAR",), "selectors", "", decode_star),
    MsrSpec(0xC0000082, "IA32_LSTAR", "where SYSCALL goes in 64-bit mode", _SYSCALL,
            ("MSR_LSTAR",), "address"),
    MsrSpec(0xC0000083, "IA32_CSTAR", "where SYSCALL goes in compatibility mode (AMD only; #UD on Intel)",
            "APM Vol. 2, SYSCALL and SYSRET", ("MSR_CSTAR",), "address"),
    MsrSpec(0xC0000084, "IA32_FMASK", "RFLAGS bits that SYSCALL clears", _SYSCALL,
            ("SFMASK", "SF_MASK", "SYSCALL_MASK", "MSR_SYSCALL_MASK"), "flags", "", decode_fmask),
    MsrSpec(0xC0000100, "IA32_FS_BASE", "base of FS: thread-local storage in user programs", _SEGMENTS,
            ("MSR_FS_BASE",), "address", "fs_base"),
    MsrSpec(0xC0000101, "IA32_GS_BASE", "active base of GS", _SEGMENTS,
            ("MSR_GS_BASE",), "address", "gs_base"),
    MsrSpec(0xC0000102, "IA32_KERNEL_GS_BASE", "waiting base of GS: SWAPGS exchanges it with IA32_GS_BASE",
            "SDM Vol. 2B, SWAPGS", ("KERNELGSBASE", "MSR_KERNEL_GS_BASE"), "address", "k_gs_base"),
    MsrSpec(0xC0000103, "IA32_TSC_AUX", "what RDTSCP and RDPID return: by convention the CPU number", _VOL4),
    MsrSpec(0x174, "IA32_SYSENTER_CS", "selectors that SYSENTER and SYSEXIT load", _SYSENTER,
            ("SYSENTER_CS",), "selectors", "", decode_sysenter_cs),
    MsrSpec(0x175, "IA32_SYSENTER_ESP", "stack pointer that SYSENTER loads", _SYSENTER, (), "address"),
    MsrSpec(0x176, "IA32_SYSENTER_EIP", "where SYSENTER goes", _SYSENTER, (), "address"),
    MsrSpec(0x277, "IA32_PAT", "memory types that page-table entries choose from",
            "SDM Vol. 3A, Page Attribute Table",
            ("IA32_CR_PAT",), "memory types", "", decode_pat),
    MsrSpec(0x1B, "IA32_APIC_BASE", "address and mode of the local APIC",
            "SDM Vol. 3A, Local APIC Status and Location",
            ("APICBASE",), "flags", "", decode_apic_base),
    MsrSpec(0x10, "IA32_TIME_STAMP_COUNTER", "time-stamp counter", _TSC, ("IA32_TSC",)),
    MsrSpec(0x3A, "IA32_FEATURE_CONTROL", "locks and enables VMX and SGX", _VOL4),
    MsrSpec(0x3B, "IA32_TSC_ADJUST", "added to the time-stamp counter", _TSC),
    MsrSpec(0x48, "IA32_SPEC_CTRL", "speculation controls: IBRS, STIBP, SSBD", _VOL4),
    MsrSpec(0x49, "IA32_PRED_CMD", "prediction barrier (write only)", _VOL4),
    MsrSpec(0x8B, "IA32_BIOS_SIGN_ID", "microcode revision", _VOL4),
    MsrSpec(0xE1, "IA32_UMWAIT_CONTROL", "limits of UMWAIT and TPAUSE", _VOL4),
    MsrSpec(0xFE, "IA32_MTRRCAP", "which MTRRs exist", _MTRR),
    MsrSpec(0x10A, "IA32_ARCH_CAPABILITIES", "which speculation flaws the CPU does not have", _VOL4),
    MsrSpec(0x179, "IA32_MCG_CAP", "machine-check capabilities", _MCA),
    MsrSpec(0x17A, "IA32_MCG_STATUS", "machine check in progress", _MCA),
    MsrSpec(0x17B, "IA32_MCG_CTL", "machine-check reporting", _MCA),
    MsrSpec(0x1A0, "IA32_MISC_ENABLE", "miscellaneous features", _VOL4),
    MsrSpec(0x1D9, "IA32_DEBUGCTL", "last-branch records and single-step on branches",
            "SDM Vol. 3B, IA32_DEBUGCTL MSR"),
    MsrSpec(0x2FF, "IA32_MTRR_DEF_TYPE", "default memory type, MTRRs enabled", _MTRR),
    MsrSpec(0x6A0, "IA32_U_CET", "control-flow enforcement at CPL 3", _CET),
    MsrSpec(0x6A2, "IA32_S_CET", "control-flow enforcement at CPL 0", _CET),
    MsrSpec(0x6A4, "IA32_PL0_SSP", "shadow stack at CPL 0", _CET, (), "address"),
    MsrSpec(0x6E0, "IA32_TSC_DEADLINE", "when the local APIC timer fires", "SDM Vol. 3A, TSC-Deadline Mode"),
    MsrSpec(0xDA0, "IA32_XSS", "supervisor state that XSAVES saves", "SDM Vol. 1, XSAVE-Supported Features"),
    MsrSpec(0xC0010114, "VM_CR", "virtualization controls (AMD)", _SVM),
    MsrSpec(0xC0010117, "VM_HSAVE_PA", "where VMRUN saves the host (AMD), physical", _SVM),
)  # fmt: skip

# What `exo-msr` shows without arguments: all that decides about SYSCALL, SYSRET and SWAPGS.
SYSCALL_MSRS: tuple[MsrSpec, ...] = MSRS[:8]


def _normalized(name: str) -> str:
    return name.upper().replace("-", "_")


def _index() -> dict[str, MsrSpec]:
    return {_normalized(name): spec for spec in MSRS for name in (spec.name, spec.short, *spec.aliases)}


_BY_NAME: Mapping[str, MsrSpec] = _index()
_BY_NUMBER: Mapping[int, MsrSpec] = {spec.number: spec for spec in MSRS}


def find_msr(name_or_number: str | int) -> MsrSpec | None:
    """The register with that name, alias or number.

    >>> find_msr("lstar").number == find_msr("IA32_LSTAR").number == 0xC0000082
    True
    >>> find_msr(0x277).name
    'IA32_PAT'
    """
    if isinstance(name_or_number, int):
        return _BY_NUMBER.get(name_or_number)
    return _BY_NAME.get(_normalized(name_or_number))


def parse_msr(text: str) -> MsrSpec:
    """The register that the user means: a name, an alias, or a number in C syntax (also one without a name).

    :raise UsageError: neither a known name nor a 32-bit number.
    """
    spec = find_msr(text)
    if spec is not None:
        return spec
    try:
        number = int(text, 0)
    except ValueError:
        raise UsageError(
            f"no MSR is called {text!r}: give a name such as IA32_LSTAR, or a number such as 0xc0000082"
        ) from None
    if not 0 <= number <= 0xFFFFFFFF:
        raise UsageError(f"{text} is no MSR number: those have 32 bits")
    return _BY_NUMBER.get(number) or MsrSpec(number, f"MSR_{number:#x}", "not in exogdb's table", "")


def decode_msr(spec: MsrSpec, value: int) -> DecodedMsr | None:
    """The fields of `value`; None for registers that hold one address or number."""
    return spec.decode(value) if spec.decode else None


def check_msr(spec: MsrSpec, value: int) -> tuple[str, ...]:
    """What is wrong with `value` by itself, one sentence each."""
    if spec.name == "IA32_EFER":
        return check_efer(value)
    return check_fmask(value) if spec.name == "IA32_FMASK" else ()
