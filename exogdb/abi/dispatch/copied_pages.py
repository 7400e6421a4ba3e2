"""The guest's memory in the emulator: each page is copied when it is first needed, and put back after a run."""

from collections.abc import Mapping
from typing import Any

from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["MASK_52", "PAGE", "CopiedPages", "canonical"]

PAGE = 4096
MASK_52 = (1 << 52) - 1  # the emulator reports physical addresses, and x86 has 52 bits of them


class CopiedPages:
    """Copies of `memory`'s pages in `uc`, a unicorn CPU. Pages are by the low 52 bits of their address."""

    def __init__(self, uc: Any, memory: ReadableMemory) -> None:
        self._uc = uc
        self._memory = memory
        self._pristine: dict[int, bytes] = {}
        self._dirty: set[int] = set()
        self._invented: set[int] = set()

    def __len__(self) -> int:
        return len(self._pristine)

    def copy(self, page: int, is_data: bool) -> bool:
        """Copy a page, once; False if it is code that the guest does not have."""
        if page in self._pristine:
            return True
        try:
            data = self._memory.read(canonical(page), PAGE)
        except MemoryFault:
            # What the kernel's state lacks just now (no process runs, say) reads as zero, so that the run gets
            # on to the comparisons; a wrong turn costs a good place, never a wrong stop.
            if not is_data:
                return False
            data = bytes(PAGE)
            self._invented.add(page)
        self._uc.mem_map(page, PAGE)
        self._uc.mem_write(page, data)
        self._pristine[page] = data
        return True

    def read_code(self, address: int, size: int) -> bytes:
        """`size` bytes of the guest's code.

        :raise MemoryFault: they cannot be read.
        """
        pages = range(address & -PAGE, address + size, PAGE)
        if not all(self.copy(page & MASK_52, is_data=False) for page in pages):
            raise MemoryFault(address, size)
        return b"".join(self._pristine[page & MASK_52] for page in pages)[address % PAGE :][:size]

    def note_write(self, address: int, size: int) -> None:
        """The run writes `size` bytes at `address`."""
        self._dirty.update(page & MASK_52 for page in range(address & -PAGE, address + size, PAGE))

    def word_before_write(self, address: int) -> int | None:
        """The 8-byte word at `address`; None in a page that the guest does not have."""
        page = address & MASK_52 & -PAGE
        if page not in self._pristine or page in self._invented:
            return None
        return int.from_bytes(self._uc.mem_read(address & MASK_52, 8), "little")

    def take_written(self) -> dict[int, bytes]:
        """The pages that were written to."""
        return {page: bytes(self._uc.mem_read(page, PAGE)) for page in self._dirty & self._pristine.keys()}

    def restore(self, written: Mapping[int, bytes]) -> None:
        """Every page that was written to as it is in `written`, or as it was copied."""
        for page in self._dirty & self._pristine.keys():
            self._uc.mem_write(page, written.get(page) or self._pristine[page])
        self._dirty.intersection_update(written)


def canonical(address: int) -> int:
    """The virtual address of which the emulator reports the low 52 bits."""
    return address | 0xFFF << 52 if address >> 51 & 1 else address
