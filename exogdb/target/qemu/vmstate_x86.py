"""The body of a `cpu` section of QEMU's x86-64 device state, field by field.

The order is that of `vmstate_x86_cpu` in QEMU's target/i386/machine.c, version 12 (since QEMU 0.15, the same
in 7.2 and 10.0). It is part of QEMU's migration promise: fields are never moved, new state comes in
subsections behind them. A version other than 12, a body that does not end where it must, or fields that
contradict each other are refused.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from exogdb.errors import FormatError

__all__ = ["CpuState", "SegmentRegister", "decode_apic_base", "decode_cpu", "decode_halted"]

CPU_VERSION = 12
CPU_COMMON_VERSION = 1
APIC_VERSION = 3
APIC_SIZE = 181
SUBSECTION = 0x05
SELECTED_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "gdtr", "idtr")

# QEMU's env.regs is in the order of the instruction encoding.
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))

# name, struct format, repetitions. A name with "-" in front is QEMU's own bookkeeping, skipped; others occur once.
FIELDS: tuple[tuple[str, str, int], ...] = (
    *((name, "Q", 1) for name in REGISTERS),
    ("rip", "Q", 1),
    ("rflags", "Q", 1),
    ("hflags", "I", 1),
    ("fcw", "H", 1),
    ("fsw", "H", 1),
    ("ftw_valid", "H", 1),
    ("fpregs_format", "H", 1),
    ("-fpregs", "10s", 8),
    *((f"{segment}{part}", fmt, 1) for segment in SELECTED_SEGMENTS
      for part, fmt in ((".selector", "I"), (".base", "Q"), (".limit", "I"), (".flags", "I"))),
    ("IA32_SYSENTER_CS", "I", 1),
    ("IA32_SYSENTER_ESP", "Q", 1),
    ("IA32_SYSENTER_EIP", "Q", 1),
    ("cr0", "Q", 1),
    ("cr2", "Q", 1),
    ("cr3", "Q", 1),
    ("cr4", "Q", 1),
    *((f"dr{n}", "Q", 1) for n in range(4)),
    ("-dr4_dr5", "Q", 2),
    ("dr6", "Q", 1),
    ("dr7", "Q", 1),
    ("a20_mask", "I", 1),
    ("mxcsr", "I", 1),
    ("-xmm", "16s", 16),
    ("IA32_EFER", "Q", 1),
    ("IA32_STAR", "Q", 1),
    ("IA32_LSTAR", "Q", 1),
    ("IA32_CSTAR", "Q", 1),
    ("IA32_FMASK", "Q", 1),
    ("IA32_KERNEL_GS_BASE", "Q", 1),
    ("-smbase", "I", 1),
    ("IA32_PAT", "Q", 1),
    ("hflags2", "I", 1),
    ("VM_HSAVE_PA", "Q", 1),
    ("-vm_vmcb", "Q", 1),
    ("-tsc_offset", "Q", 1),
    ("-intercept", "Q", 1),
    ("-intercept_cr_dr", "H", 4),
    ("-intercept_exceptions", "I", 1),
    ("-v_tpr", "B", 1),
    ("-mtrr_fixed", "Q", 11),
    ("IA32_MTRR_DEF_TYPE", "Q", 1),
    ("-mtrr_var", "Q", 16),
    ("-interrupt_injected", "I", 1),
    ("-mp_state", "I", 1),
    ("-tsc", "Q", 1),
    ("-exception_nr", "I", 1),
    ("-soft_interrupt", "B", 1),
    ("-nmi_injected", "B", 1),
    ("-nmi_pending", "B", 1),
    ("-has_error_code", "B", 1),
    ("-sipi_vector", "I", 1),
    ("IA32_MCG_CAP", "Q", 1),
    ("IA32_MCG_STATUS", "Q", 1),
    ("IA32_MCG_CTL", "Q", 1),
    ("-mce_banks", "Q", 40),
    ("IA32_TSC_AUX", "Q", 1),
    ("-system_time_msr", "Q", 1),
    ("-wall_clock_msr", "Q", 1),
    ("xcr0", "Q", 1),
    ("-xstate_bv", "Q", 1),
    ("-ymmh", "16s", 16),
)  # fmt: skip


def _to_struct(name: str, fmt: str, count: int) -> str:
    return f"{struct.calcsize(f'>{fmt}') * count}x" if name.startswith("-") else fmt


# All fields in one go: taking them one by one would be most of the time that a stream takes.
_BODY = struct.Struct(">" + "".join(_to_struct(*field) for field in FIELDS))
BODY_SIZE = _BODY.size
_POSITIONS = {name: at for at, name in enumerate(name for name, _, _ in FIELDS if not name.startswith("-"))}
_REGISTER_NAMES = tuple(name for name in _POSITIONS if name.islower() and "." not in name)
_MSR_NAMES = tuple(name for name in _POSITIONS if name.isupper())
_SEGMENT_POSITIONS = tuple((name, _POSITIONS[f"{name}.selector"]) for name in SELECTED_SEGMENTS)
_pick_registers = itemgetter(*(_POSITIONS[name] for name in _REGISTER_NAMES))
_pick_msrs = itemgetter(*(_POSITIONS[name] for name in _MSR_NAMES))

# Subsections of known length, most of them one MSR; QEMU writes them only when the value is not the reset
# value.
SUBSECTIONS: Mapping[str, tuple[str, str]] = {
    "cpu/async_pf_msr": ("-", ">Q"),
    "cpu/async_pv_eoi_msr": ("-", ">Q"),
    "cpu/steal_time_msr": ("-", ">Q"),
    "cpu/poll_control_msr": ("-", ">Q"),
    "cpu/fpop_ip_dp": ("-", ">18s"),
    "cpu/msr_tsc_adjust": ("IA32_TSC_ADJUST", ">Q"),
    "cpu/msr_tscdeadline": ("IA32_TSC_DEADLINE", ">Q"),
    "cpu/msr_ia32_misc_enable": ("IA32_MISC_ENABLE", ">Q"),
    "cpu/msr_ia32_feature_control": ("IA32_FEATURE_CONTROL", ">Q"),
    "cpu/xss": ("IA32_XSS", ">Q"),
    "cpu/umwait": ("IA32_UMWAIT_CONTROL", ">I"),
    "cpu/tsc_khz": ("-", ">Q"),
    "cpu/msr_smi_count": ("-", ">Q"),
    "cpu/pkru": ("-", ">I"),
    "cpu/spec_ctrl": ("IA32_SPEC_CTRL", ">Q"),
    "cpu/mcg_ext_ctl": ("-", ">Q"),
    "cpu/virt_ssbd": ("-", ">Q"),
    "cpu/svn_npt": ("-", ">12s"),
}

# QEMU target/i386/cpu.h: HF_CPL_MASK, HF_LMA_SHIFT, DESC_DPL_SHIFT; EFER.LMA is bit 10.
HFLAGS_LMA = 1 << 14
EFER_LMA = 1 << 10
A20_MASKS = (0xFFFFFFFF, 0xFFEFFFFF)


class SegmentRegister(NamedTuple):
    """A segment register with its hidden part. `limit` in bytes; `flags` is bits 63:32 of the descriptor."""

    selector: int
    base: int
    limit: int
    flags: int


@dataclass(frozen=True)
class CpuState:
    """One vCPU as QEMU saved it.

    `registers` has rax to r15, rip, rflags, cr0, cr2, cr3, cr4, dr0 to dr3, dr6, dr7, xcr0; `segments`
    has es, cs, ss, ds, fs, gs, ldtr, tr, gdtr, idtr; `msrs` is by the names of the Intel SDM. `halted`:
    it executed HLT and waits.
    """

    index: int
    halted: bool
    registers: Mapping[str, int]
    segments: Mapping[str, SegmentRegister]
    msrs: Mapping[str, int]

    @property
    def cpl(self) -> int:
        """The current privilege level, 0 to 3: the DPL of the hidden part of SS (Intel SDM Vol. 3A,
        Privilege Levels).
        """
        return self.segments["ss"].flags >> 13 & 3


def _check_consistent(
    registers: Mapping[str, int], segments: Mapping[str, SegmentRegister], msrs: Mapping[str, int], offset: int
) -> None:
    """Refuse fields that contradict each other: then the layout is not the one assumed."""
    problem = ""
    if registers["fpregs_format"] != 0:
        problem = "the x87 format field is not 0"
    elif registers["a20_mask"] not in A20_MASKS:
        problem = f"the A20 mask is {registers['a20_mask']:#x}"
    elif bool(registers["hflags"] & HFLAGS_LMA) != bool(msrs["IA32_EFER"] & EFER_LMA):
        problem = "EFER.LMA and QEMU's own flag for long mode differ"
    elif registers["hflags"] & 3 != segments["ss"].flags >> 13 & 3:
        problem = "the privilege level and the DPL of SS differ"
    elif any(segment.selector > 0xFFFF for segment in segments.values()):
        problem = "a selector has more than 16 bits"
    if problem:
        raise FormatError(f"the 'cpu' section contradicts itself ({problem}): an unknown layout", offset)


def _subsection_msrs(body: bytes, offset: int) -> dict[str, int]:
    """MSRs in the subsections behind the fields; each is `0x05 u8 len name u32 version fields`.

    The length of `fields` is written nowhere: behind a subsection that is not in the table nothing is
    decoded.
    """
    msrs: dict[str, int] = {}
    at = BODY_SIZE
    while at < len(body):
        length = body[at + 1] if at + 1 < len(body) else 0
        name = body[at + 2 : at + 2 + length]
        if body[at] != SUBSECTION or not name.startswith(b"cpu/") or len(name) != length:
            raise FormatError("the 'cpu' section does not end where x86-64 version 12 ends", offset + at)
        at += 2 + length + 4
        known = SUBSECTIONS.get(name.decode("ascii", "replace"))
        if known is None:
            break
        msr, fmt = known
        if at + struct.calcsize(fmt) > len(body):
            raise FormatError(f"subsection {name.decode('ascii')} is cut short", offset + at)
        if msr != "-":
            (msrs[msr],) = struct.unpack_from(fmt, body, at)
        at += struct.calcsize(fmt)
    return msrs


def decode_cpu(
    body: bytes, version: int, index: int, halted: bool, apic_base: int | None, offset: int = 0
) -> CpuState:
    """The vCPU in the body of a `cpu` section; `offset` is where that starts in the stream, in bytes.

    :raise FormatError: another version, length or content than x86-64 has.
    """
    if version != CPU_VERSION:
        raise FormatError(f"the 'cpu' section has version {version}, exogdb knows {CPU_VERSION}", offset)
    if len(body) < BODY_SIZE:
        raise FormatError(f"the 'cpu' section has {len(body)} bytes, fewer than the {BODY_SIZE} of x86-64", offset)
    values = _BODY.unpack_from(body)
    registers = dict(zip(_REGISTER_NAMES, _pick_registers(values), strict=True))
    segments = {name: SegmentRegister(*values[at : at + 4]) for name, at in _SEGMENT_POSITIONS}
    msrs = dict(zip(_MSR_NAMES, _pick_msrs(values), strict=True))
    _check_consistent(registers, segments, msrs, offset)
    msrs |= _subsection_msrs(body, offset)
    msrs["IA32_FS_BASE"] = segments["fs"].base
    msrs["IA32_GS_BASE"] = segments["gs"].base
    if apic_base is not None:
        msrs["IA32_APIC_BASE"] = apic_base
    return CpuState(index, halted, registers, segments, msrs)


def decode_halted(body: bytes, version: int, offset: int = 0) -> bool:
    """Whether the vCPU of a `cpu_common` section is halted (QEMU cpu.c, vmstate_cpu_common: the first u32).

    :raise FormatError: another version, or not a flag.
    """
    if version != CPU_COMMON_VERSION or len(body) < 8:
        raise FormatError(f"the 'cpu_common' section has version {version} and {len(body)} bytes", offset)
    (halted,) = struct.unpack_from(">I", body)
    if halted not in (0, 1):
        raise FormatError(f"the 'cpu_common' section says halted = {halted}", offset)
    return bool(halted)


def decode_apic_base(body: bytes, version: int, offset: int = 0) -> int:
    """IA32_APIC_BASE in an `apic` section (QEMU hw/intc/apic_common.c, vmstate_apic_common: the first u32).

    :raise FormatError: another version, or another length than its fields (subsections may follow them).
    """
    followed = body[APIC_SIZE] if len(body) > APIC_SIZE else SUBSECTION
    if version != APIC_VERSION or len(body) < APIC_SIZE or followed != SUBSECTION:
        raise FormatError(f"the 'apic' section has version {version} and {len(body)} bytes", offset)
    value: int = struct.unpack_from(">I", body)[0]
    return value
