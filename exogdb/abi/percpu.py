"""The per-CPU block behind the kernel's GS base, field by field."""

from collections.abc import Iterable
from dataclasses import dataclass

from exogdb.abi.stub.entry_path import GsAccess
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import MemoryFault
from exogdb.reading import Reading, Unavailable, Value
from exogdb.x86.memory import ReadableMemory

__all__ = ["Aggregate", "PerCpuBlock", "PerCpuField", "read_by_offsets"]


@dataclass(frozen=True)
class Aggregate:
    """A structure or an array, which is not read: only where it is."""

    address: int


@dataclass(frozen=True)
class PerCpuField:
    """One field: `offset` in bytes from the base, `size` in bytes, `type` in the kernel's own words or empty."""

    name: str
    offset: int
    size: int
    type: str
    value: Value | Aggregate


@dataclass(frozen=True)
class PerCpuBlock:
    """`known_by` says where names and offsets come from: a type of the debug info, or the entry stub's code."""

    address: int
    known_by: str
    fields: tuple[PerCpuField, ...]


def _read_field(memory: ReadableMemory, base: int, offset: int) -> Value:
    try:
        return Reading(int.from_bytes(memory.read(base + offset, 8), "little"), "memory")
    except MemoryFault as error:
        return Unavailable(error.reason)


def read_by_offsets(memory: ReadableMemory, base: int, accesses: Iterable[GsAccess]) -> PerCpuBlock:
    """The 8-byte slots that the entry stub uses while the kernel's base is active, at `base` (virtual).

    Only memory is read. Without debug info a slot is called by its offset: `gs:0x8`.
    """
    offsets = sorted({access.offset for access in accesses if access.active is Gs.KERNEL})
    fields = [
        PerCpuField(f"gs:{offset:#x}", offset, 8, "", _read_field(memory, base, offset)) for offset in offsets
    ]
    return PerCpuBlock(base, "the offsets that the entry stub uses", tuple(fields))
