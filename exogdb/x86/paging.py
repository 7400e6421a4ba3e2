"""Page walks: what a linear address maps to, and what each level of the page tables allows.

::

    linear address   63   57 56   48 47   39 38   30 29   21 20   12 11      0
                             PML5E   PML4E   PDPTE    PDE     PTE    offset
                                             1 GiB    2 MiB   4 KiB  pages

    entry: bit 0 P, 1 R/W, 2 U/S, 5 A, 6 D, 7 PS, 8 G, 51:12 address, 62:59 key, 63 XD

An access is allowed when every level allows it: writable and user are ANDed, no-execute is ORed. Protection
keys, SMEP and SMAP come on top and are not looked at here. Source: Intel SDM Vol. 3A, 4-Level and 5-Level
Paging, Access Rights.
"""

from dataclasses import dataclass

from exogdb.x86.address import is_canonical, linear_bits
from exogdb.x86.memory import ReadableMemory

__all__ = ["CR4_SMEP", "PageTableEntry", "PageWalk", "walk_page_tables"]

CR0_PG, CR4_PAE, CR4_SMEP = 1 << 31, 1 << 5, 1 << 20
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11
PRESENT, WRITABLE, USER, PAGE_SIZE, XD = 1 << 0, 1 << 1, 1 << 2, 1 << 7, 1 << 63
ADDRESS_MASK = 0x000FFFFFFFFFF000

# name, lowest bit of the index, may map a page itself (PS)
LEVELS = (
    ("PML5E", 48, False),
    ("PML4E", 39, False),
    ("PDPTE", 30, True),
    ("PDE", 21, True),
    ("PTE", 12, True),
)


@dataclass(frozen=True)
class PageTableEntry:
    """One entry on the way. `address` is its physical address, `index` its position in the 512-entry table.

    `problem` says why the walk ends here without a page, empty otherwise. `nx` is bit 63, and false when
    EFER.NXE is clear (then the bit is reserved).
    """

    level: str
    address: int
    index: int
    raw: int
    present: bool
    writable: bool
    user: bool
    nx: bool
    accessed: bool
    dirty: bool
    leaf: bool
    problem: str = ""

    @property
    def physical(self) -> int:
        """The physical address of the next table or of the page."""
        return self.raw & ADDRESS_MASK


@dataclass(frozen=True)
class PageWalk:
    """The result. `physical` is None when the address is not mapped, and `reason` says why.

    `size` is that of the page in bytes, 0 when not mapped. `writable`, `user` and `nx` combine all levels.
    """

    address: int
    entries: tuple[PageTableEntry, ...]
    physical: int | None
    size: int
    writable: bool
    user: bool
    nx: bool
    reason: str = ""

    @property
    def mapped(self) -> bool:
        """Whether the address translates."""
        return self.physical is not None


def _decode_entry(
    raw: int, level: str, shift: int, may_map: bool, at: int, index: int, nxe: bool
) -> PageTableEntry:
    leaf = shift == 12 or (may_map and bool(raw & PAGE_SIZE))
    problem = ""
    if not raw & PRESENT:
        problem = "not present"
    elif raw & XD and not nxe:
        problem = "bit 63 is set while EFER.NXE is clear (reserved)"
    elif raw & PAGE_SIZE and not may_map:
        problem = "PS is set, which this level reserves"
    elif leaf and shift > 12 and raw & ((1 << shift) - 1) & ~0x1FFF:
        problem = "reserved address bits of a large page are set"
    return PageTableEntry(
        level=level,
        address=at,
        index=index,
        raw=raw,
        present=bool(raw & PRESENT),
        writable=bool(raw & WRITABLE),
        user=bool(raw & USER),
        nx=bool(raw & XD) and nxe,
        accessed=bool(raw & 1 << 5),
        dirty=leaf and bool(raw & 1 << 6),
        leaf=leaf,
        problem=problem,
    )


def _not_mapped(address: int, entries: list[PageTableEntry], reason: str) -> PageWalk:
    return PageWalk(address, tuple(entries), None, 0, writable=False, user=False, nx=False, reason=reason)


def walk_page_tables(memory: ReadableMemory, address: int, cr0: int, cr3: int, cr4: int, efer: int) -> PageWalk:
    """Translate the linear `address` with 4- or 5-level paging. `memory` is addressed physically.

    :raise exogdb.errors.MemoryFault: a page table lies where there is no memory.
    """
    if not cr0 & CR0_PG:
        return PageWalk(address, (), address, 4096, writable=True, user=True, nx=False, reason="paging is off")
    if not (cr4 & CR4_PAE and efer & EFER_LMA):
        return _not_mapped(address, [], "the CPU is not in long mode: 32-bit paging is not decoded")
    bits = linear_bits(cr4)
    if not is_canonical(address, bits):
        return _not_mapped(address, [], f"not canonical with {bits}-bit linear addresses")
    table = cr3 & ADDRESS_MASK
    entries: list[PageTableEntry] = []
    for level, shift, may_map in LEVELS[0 if bits == 57 else 1 :]:
        index = address >> shift & 0x1FF
        raw = int.from_bytes(memory.read(table + 8 * index, 8), "little")
        entry = _decode_entry(raw, level, shift, may_map, table + 8 * index, index, bool(efer & EFER_NXE))
        entries.append(entry)
        if entry.problem:
            return _not_mapped(address, entries, f"{level} {entry.problem}")
        if entry.leaf:
            return _mapped(address, entries, 1 << shift)
        table = entry.physical
    raise AssertionError("the last level is always a leaf")


def _mapped(address: int, entries: list[PageTableEntry], size: int) -> PageWalk:
    page = entries[-1].physical & ~(size - 1)
    return PageWalk(
        address=address,
        entries=tuple(entries),
        physical=page | address & size - 1,
        size=size,
        writable=all(entry.writable for entry in entries),
        user=all(entry.user for entry in entries),
        nx=any(entry.nx for entry in entries),
    )
