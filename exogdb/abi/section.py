"""A section of the kernel's image: where its symbol file says that it is, and what it may be used for."""

from dataclasses import dataclass

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """A section of the kernel's image, from its symbol file: `start` to `end` (exclusive), linear."""

    name: str
    start: int
    end: int
    executable: bool
    writable: bool

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end
