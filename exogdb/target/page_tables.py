"""Page walks on the running guest, reading every page table once. Nothing in the guest changes."""

from dataclasses import dataclass, replace

from exogdb.errors import MemoryFault, UnavailableError
from exogdb.reading import Unavailable, note
from exogdb.target.cpus import Cpu
from exogdb.target.registers import read_register
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.paging import PageWalk, walk_page_tables

__all__ = ["AddressSpace", "PageTableMemory", "walk"]

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


@dataclass(frozen=True)
class AddressSpace:
    """What a CPU sees with `cr3`. Implements `exogdb.x86.memory.ReadableMemory`, by linear address."""

    tables: PageTableMemory
    cr0: int
    cr3: int
    cr4: int
    efer: int

    @classmethod
    def loaded_by(cls, cpu: Cpu, tables: PageTableMemory) -> "AddressSpace":
        """The one that `cpu` has loaded.

        :raise UnavailableError: a control register of `cpu` cannot be read.
        """
        return cls(tables, *(read_register(cpu, name) for name in ("cr0", "cr3", "cr4", "efer")))

    def through(self, cr3: int) -> "AddressSpace":
        """What the same CPU would see with another CR3."""
        return replace(self, cr3=cr3)

    def walk(self, address: int) -> PageWalk | Unavailable:
        """The page walk of `address`, or why it cannot be had."""
        try:
            return walk_page_tables(self.tables, address, self.cr0, self.cr3, self.cr4, self.efer)
        except UnavailableError as error:
            return note(error)

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes from linear `address`.

        :raise exogdb.errors.MemoryFault: any byte of the range is not mapped, or no RAM.
        """
        data = b""
        while len(data) < size:
            at = (address + len(data)) % (1 << 64)
            walk = walk_page_tables(self.tables, at, self.cr0, self.cr3, self.cr4, self.efer)
            if walk.physical is None:
                raise MemoryFault(address, size, f"cannot read {size} bytes at {address:#x}: {walk.reason}")
            data += self.tables.read(walk.physical, min(size - len(data), _TABLE_SIZE - at % _TABLE_SIZE))
        return data


def walk(space: AddressSpace | Unavailable, address: int) -> PageWalk | Unavailable:
    """The page walk of `address`, or why it cannot be had: there may be no page tables to walk."""
    return space if isinstance(space, Unavailable) else space.walk(address)
