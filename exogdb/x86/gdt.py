"""The global descriptor table: which descriptor each selector hits.

The GDT is `limit` + 1 bytes at the linear address `base` (SGDT; Intel SDM Vol. 3A, Segment Descriptor Tables).
The CPU reads it only when a selector is loaded: a table that changed afterwards has no effect until the next
load. It also writes it, with supervisor rights: a load sets the accessed bit where that is clear, LTR makes its
TSS busy. SYSCALL and SYSRET do neither, so a kernel can keep its GDT in read-only pages once the accessed bits
are set and LTR has run.

Entry 0 is never read. Whatever lies there is no descriptor; some kernels keep the operand of LGDT in it.
"""

from dataclasses import dataclass

from exogdb.errors import FormatError
from exogdb.x86.descriptor import Descriptor, NullDescriptor, decode_descriptor
from exogdb.x86.selector import Selector

__all__ = ["Gdt", "GdtEntry", "decode_gdt"]


@dataclass(frozen=True)
class GdtEntry:
    """One descriptor. `selector` is the one that names it, with RPL 0; `address` is linear."""

    selector: Selector
    address: int
    descriptor: Descriptor


@dataclass(frozen=True)
class Gdt:
    """A decoded table. `limit` in bytes, one less than the size. `damage` says what could not be decoded, or
    ''.
    """

    base: int
    limit: int
    entries: tuple[GdtEntry, ...]
    damage: str = ""

    def find_descriptor(self, selector: Selector) -> Descriptor | None:
        """The descriptor that `selector` names; None outside the table, in the LDT, or in a 16-byte entry's
        middle.
        """
        if selector.in_ldt:
            return None
        for entry in self.entries:
            if entry.selector.offset == selector.offset:
                return entry.descriptor
        return None


def decode_gdt(data: bytes, base: int) -> Gdt:
    """The table in `data`, all `limit` + 1 bytes of it, as it lies at the linear address `base`.

    A 16-byte system descriptor takes two slots. A tail shorter than a descriptor is named in `damage`.
    """
    entries = []
    at = 0
    damage = ""
    while at < len(data):
        try:
            descriptor = decode_descriptor(data[at : at + 16]) if at else _decode_entry_0(data)
        except FormatError as error:
            damage = f"offset {at:#x}: {error}"
            break
        entries.append(GdtEntry(Selector(at), base + at, descriptor))
        at += descriptor.size
    return Gdt(base, len(data) - 1, tuple(entries), damage)


def _decode_entry_0(data: bytes) -> NullDescriptor:
    if len(data) < 8:
        raise FormatError(f"a descriptor has 8 bytes, got {len(data)}")
    return NullDescriptor(int.from_bytes(data[:8], "little"))
