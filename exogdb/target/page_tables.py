"""Page walks on the running guest, reading every page table once. Nothing in the guest changes."""

from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.registers import read_register
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.paging import PageWalk, walk_page_tables

__all__ = ["AddressSpace", "PageTableMemory"]

_TABLE_SIZE = 4096


class PageTableMemory:
    """Physical memory, kept by the page for as long as this object lives: one command on a stopped guest."""

    def __init__(self, physical: ReadableMemory) -> None:
        self._physical = physical
        self._tables: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at physical `address`, all in one page.

        :raise exogdb.errors.MemoryFault: the page is not RAM.
        """
        table, offset = address & -_TABLE_SIZE, address % _TABLE_SIZE
        if table not in self._tables:
            self._tables[table] = self._physical.read(table, _TABLE_SIZE)
        return self._tables[table][offset : offset + size]


class AddressSpace:
    """What `cpu` sees through the page tables it has loaded."""

    def __init__(self, cpu: Cpu, tables: PageTableMemory) -> None:
        """:raise UnavailableError: a control register of `cpu` cannot be read."""
        self._tables = tables
        self._cr0, self._cr3, self._cr4, self._efer = (
            read_register(cpu, name) for name in ("cr0", "cr3", "cr4", "efer")
        )

    def walk(self, address: int) -> PageWalk | Unavailable:
        """The page walk of `address`, or why it cannot be had."""
        try:
            return walk_page_tables(self._tables, address, self._cr0, self._cr3, self._cr4, self._efer)
        except UnavailableError as error:
            return Unavailable(error.reason)
