"""The one thing that decoders ask of a guest: bytes at an address."""

from typing import Protocol

__all__ = ["ReadableMemory"]


class ReadableMemory(Protocol):
    """An address space that can be read. Implementations say whether addresses are virtual or physical."""

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes from `address`.

        :raise exogdb.errors.MemoryFault: any byte of the range cannot be read.
        """
