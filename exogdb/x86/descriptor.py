"""Segment and system descriptors as they lie in a GDT or LDT in long mode.

A code or data descriptor is 8 bytes, a TSS or LDT descriptor 16::

    63    56 55 54 53 52 51 48 47 46 45 44 43  40 39    16 15     0
    +-------+--+--+--+--+-----+--+-----+--+------+--------+--------+
    | base  |G |DB|L |AV|limit|P | DPL |S | type |  base  | limit  |
    | 31:24 |  |  |  |L |19:16|  |     |  |      |  23:0  | 15:0   |
    +-------+--+--+--+--+-----+--+-----+--+------+--------+--------+
    TSS and LDT: bits 95:64 are base 63:32, bits 127:96 reserved

A call gate has the layout of a gate in the IDT, with no base and no limit: offset 15:0 and 31:16 at either end,
selector in 31:16, offset 63:32 in 95:64. With DPL 3 it is a way into the kernel beside SYSCALL and INT, which
no MSR and no IDT shows.

Bits 108:104 of the second half are where a descriptor of its own would have S and type. They have to be 0, so
that a selector of the second half names no descriptor.

Source: Intel SDM Vol. 3A, Segment Descriptors, System Descriptor Types, and Call Gates; AMD APM Vol. 2, Long-Mode
Segment Descriptors.
"""

from dataclasses import dataclass
from typing import TypeAlias

from exogdb.errors import FormatError
from exogdb.x86.selector import Selector

__all__ = [
    "CallGate",
    "CodeDescriptor",
    "DataDescriptor",
    "Descriptor",
    "NullDescriptor",
    "SystemDescriptor",
    "decode_descriptor",
]

CALL_GATE = 0xC
# Interrupt and trap gates, 0xe and 0xf, are for the IDT alone.
SYSTEM_TYPES = {0x2: "LDT", 0x9: "64-bit TSS (available)", 0xB: "64-bit TSS (busy)", CALL_GATE: "64-bit call gate"}


@dataclass(frozen=True)
class NullDescriptor:
    """Nothing may be loaded from here: eight zero bytes, or entry 0 of a GDT, whatever is there (`raw`)."""

    raw: int = 0
    present: bool = False
    dpl: int = 0
    kind: str = "null"
    size: int = 8


@dataclass(frozen=True)
class CodeDescriptor:
    """A code segment. In 64-bit mode the CPU ignores `base` and `limit` (bytes)."""

    raw: int
    base: int
    limit: int
    dpl: int
    present: bool
    long: bool
    default_32: bool
    conforming: bool
    readable: bool
    accessed: bool
    size: int = 8

    @property
    def kind(self) -> str:
        """The size of code it holds."""
        if self.long:
            return "64-bit code"
        return "32-bit code" if self.default_32 else "16-bit code"


@dataclass(frozen=True)
class DataDescriptor:
    """A data segment. In 64-bit mode the CPU ignores `base` and `limit` (bytes), except the base of FS and
    GS.
    """

    raw: int
    base: int
    limit: int
    dpl: int
    present: bool
    big: bool
    expand_down: bool
    writable: bool
    accessed: bool
    size: int = 8
    kind: str = "data"


@dataclass(frozen=True)
class SystemDescriptor:
    """A TSS or an LDT. `limit` in bytes; `base` 64 bits; `size` 16 bytes where long mode defines the type."""

    raw: int
    base: int
    limit: int
    dpl: int
    present: bool
    type: int
    size: int = 16

    @property
    def kind(self) -> str:
        """The type by name; types that long mode reserves are named so."""
        return SYSTEM_TYPES.get(self.type, f"reserved system type {self.type:#x}")

    @property
    def is_tss(self) -> bool:
        """Available or busy 64-bit TSS."""
        return self.type in (0x9, 0xB)


@dataclass(frozen=True)
class CallGate:
    """Where a far CALL through its selector goes: `offset` (64 bits) in the code segment `selector`."""

    raw: int
    selector: Selector
    offset: int
    dpl: int
    present: bool
    size: int = 16
    kind: str = SYSTEM_TYPES[CALL_GATE]


Descriptor: TypeAlias = NullDescriptor | CodeDescriptor | DataDescriptor | SystemDescriptor | CallGate


def _base_and_limit(raw: int) -> tuple[int, int]:
    base = raw >> 16 & 0xFFFFFF | (raw >> 56 & 0xFF) << 24
    limit = raw & 0xFFFF | (raw >> 48 & 0xF) << 16
    granular = raw >> 55 & 1
    return base, (limit << 12 | 0xFFF) if granular else limit


def _decode_system(raw: int, data: bytes) -> SystemDescriptor | CallGate:
    type_ = raw >> 40 & 0xF
    base, limit = _base_and_limit(raw)
    dpl, present = raw >> 45 & 3, bool(raw >> 47 & 1)
    if type_ not in SYSTEM_TYPES:
        return SystemDescriptor(raw, base, limit, dpl, present, type_, size=8)
    if len(data) < 16:
        raise FormatError(f"the table ends inside a 16-byte descriptor ({SYSTEM_TYPES[type_]})")
    raw |= int.from_bytes(data[8:16], "little") << 64
    upper = (raw >> 64 & 0xFFFFFFFF) << 32
    if type_ == CALL_GATE:
        offset = raw & 0xFFFF | (raw >> 48 & 0xFFFF) << 16 | upper
        return CallGate(raw, Selector(raw >> 16 & 0xFFFF), offset, dpl, present)
    return SystemDescriptor(raw, base | upper, limit, dpl, present, type_)


def decode_descriptor(data: bytes) -> Descriptor:
    """The descriptor at the start of `data`: 8 bytes little-endian, 16 for a system descriptor.

    :raise FormatError: fewer bytes than the descriptor has.

    >>> decode_descriptor(bytes.fromhex("ffff0000009baf00")).kind
    '64-bit code'
    >>> decode_descriptor(bytes.fromhex("ffff000000f3cf00")).dpl
    3
    """
    if len(data) < 8:
        raise FormatError(f"a descriptor has 8 bytes, got {len(data)}")
    raw = int.from_bytes(data[:8], "little")
    if raw == 0:
        return NullDescriptor()
    type_ = raw >> 40 & 0xF
    if not raw >> 44 & 1:
        return _decode_system(raw, data)
    base, limit = _base_and_limit(raw)
    dpl, present, accessed = raw >> 45 & 3, bool(raw >> 47 & 1), bool(type_ & 1)
    second, third = bool(type_ & 4), bool(type_ & 2)
    long, big = bool(raw >> 53 & 1), bool(raw >> 54 & 1)
    if type_ & 8:
        return CodeDescriptor(raw, base, limit, dpl, present, long, big, second, third, accessed)
    return DataDescriptor(raw, base, limit, dpl, present, big, second, third, accessed)
