"""What QEMU's monitor prints for `info registers -a`: the only source of IDTR, GDTR and TR without QMP. Pure.

::

    CPU#0
    ...
    RIP=ffffffff80100123 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
    CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
    TR =0028 ffffffff8010a000 00000067 00008b00 DPL=0 TSS64-busy
    GDT=     ffffffff8010a080 00000037
    IDT=     ffffffff8010b000 00000fff

The form is that of QEMU's target/i386/cpu-dump.c (x86_cpu_dump_state), unchanged for many versions. A dump without
one of the lines that are needed is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from exogdb.errors import FormatError
from exogdb.target.qemu.vmstate_x86 import SegmentRegister

__all__ = ["CpuDump", "parse_cpu_dumps"]

_CPU = re.compile(r"^CPU#(\d+)$", re.MULTILINE)
_STATE = re.compile(r"^[ER]IP=\w+ .*CPL=(\d) II=([01]) A20=[01] SMM=([01]) HLT=([01])\s*$", re.MULTILINE)
_SEGMENT = re.compile(r"^(ES|CS|SS|DS|FS|GS|LDT|TR) *=(\w{4}) (\w{8,16}) (\w{8}) (\w{8})", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)= +(\w{8,16}) (\w{8})\s*$", re.MULTILINE)
_NAMES = {"LDT": "ldtr", "GDT": "gdtr", "IDT": "idtr"}
_COMPLETE = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "gdtr", "idtr"}


@dataclass(frozen=True)
class CpuDump:
    """One CPU as QEMU's monitor shows it.

    `halted`: it executed HLT and waits. `interrupts_inhibited`: the instruction before was STI or MOV SS, whose
    shadow covers the next one. `segments` has es to gs, ldtr, tr, gdtr and idtr.
    """

    index: int
    cpl: int
    halted: bool
    interrupts_inhibited: bool
    in_smm: bool
    segments: Mapping[str, SegmentRegister]


def _parse_cpu(index: int, text: str) -> CpuDump:
    state = _STATE.search(text)
    if state is None:
        raise FormatError(f"QEMU's `info registers -a` has no line with CPL and HLT for CPU {index}")
    segments = {
        _NAMES.get(name, name.lower()): SegmentRegister(*(int(part, 16) for part in parts))
        for name, *parts in _SEGMENT.findall(text)
    }
    for name, base, limit in _TABLE.findall(text):
        segments[_NAMES[name]] = SegmentRegister(0, int(base, 16), int(limit, 16), 0)
    missing = _COMPLETE - set(segments)
    if missing:
        names = ", ".join(sorted(missing))
        raise FormatError(f"QEMU's `info registers -a` does not show {names} of CPU {index}")
    cpl, inhibited, smm, halted = (int(digit) for digit in state.groups())
    return CpuDump(index, cpl, bool(halted), bool(inhibited), bool(smm), segments)


def parse_cpu_dumps(text: str) -> dict[int, CpuDump]:
    """Every CPU in the answer to `info registers -a`, by QEMU's CPU index.

    :raise FormatError: no CPU in it, or a needed line is missing.
    """
    parts = _CPU.split(text.replace("\r", ""))
    dumps = {
        int(index): _parse_cpu(int(index), body) for index, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    if not dumps:
        raise FormatError("QEMU's monitor does not know `info registers -a`")
    return dumps
