"""All pages of the upper half of an address space: the kernel's, by convention of every x86-64 system.

Source: Intel SDM Vol. 3A, 4-Level and 5-Level Paging, Access Rights.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from exogdb.errors import UnavailableError
from exogdb.x86.address import canonical_form, linear_bits
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.paging import ADDRESS_MASK, EFER_NXE, PAGE_SIZE, PRESENT, USER, WRITABLE, XD

__all__ = ["MappedPage", "scan_upper_half"]

TABLE_SIZE = 4096
MOST_TABLES = 4096  # 8 GiB of RAM that is mapped in pages of 4 KiB


class MappedPage(NamedTuple):
    """A page that is mapped: linear `address`, `size` in bytes, and what all levels of the page tables allow."""

    address: int
    size: int
    physical: int
    writable: bool
    user: bool
    nx: bool


def scan_upper_half(memory: ReadableMemory, cr3: int, cr4: int, efer: int) -> list[MappedPage]:
    """Every page with the uppermost address bit set, in address order. `memory` is addressed physically.

    :raise UnavailableError: there are more than 4,096 page tables.
    :raise exogdb.errors.MemoryFault: a page table lies where there is no memory.
    """
    bits = linear_bits(cr4)
    top = MappedPage(0, 0, cr3 & ADDRESS_MASK, writable=True, user=True, nx=False)
    pages: list[MappedPage] = []
    _scan(memory, top, bits - 9, bits, bool(efer & EFER_NXE), iter(range(MOST_TABLES)), pages)
    return pages


def _scan(
    memory: ReadableMemory,
    table: MappedPage,
    shift: int,
    bits: int,
    nxe: bool,
    budget: Iterator[int],
    pages: list[MappedPage],
) -> None:
    """Add to `pages` those below `table`, whose rights are what the levels above allow.

    Each of its entries maps 2**`shift` bytes.
    """
    if next(budget, None) is None:
        raise UnavailableError(f"the kernel has more than {MOST_TABLES} page tables")
    entries = struct.unpack("<512Q", memory.read(table.physical, TABLE_SIZE))
    for index in range(256 if shift == bits - 9 else 0, 512):
        raw = entries[index]
        if not raw & PRESENT:
            continue
        is_page = shift == 12 or bool(raw & PAGE_SIZE and shift <= 30)
        below = MappedPage(
            address=canonical_form(table.address | index << shift, bits),
            size=1 << shift,
            physical=raw & ADDRESS_MASK & (-1 << shift if is_page else -1),
            writable=table.writable and bool(raw & WRITABLE),
            user=table.user and bool(raw & USER),
            nx=table.nx or (nxe and bool(raw & XD)),
        )
        if is_page:
            pages.append(below)
        else:
            _scan(memory, below, shift - 9, bits, nxe, budget, pages)
