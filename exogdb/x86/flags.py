"""Registers whose bits have names.

Unknown bits stay visible: a set bit without a name is never dropped.

>>> table = (Flag("SCE", 0, "SYSCALL enabled"), Flag("LME", 8, "long mode enabled"))
>>> decode_flags(0x8101, table)
('SCE', 'LME', '0x8000')
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Flag", "decode_flags", "unknown_bits"]


@dataclass(frozen=True)
class Flag:
    """One named bit. `source` is the section of the manual that defines it."""

    name: str
    bit: int
    meaning: str
    source: str = ""

    @property
    def mask(self) -> int:
        """The bit as a number."""
        return 1 << self.bit


def unknown_bits(value: int, flags: Sequence[Flag], known: int = 0) -> int:
    """The bits of `value` that neither `flags` nor the mask `known` covers.

    >>> hex(unknown_bits(0x8101, (Flag("SCE", 0, ""),), known=0x100))
    '0x8000'
    """
    return value & ~(known | sum(flag.mask for flag in flags))


def decode_flags(value: int, flags: Sequence[Flag], known: int = 0) -> tuple[str, ...]:
    """The names of the bits set in `value`, in the order of `flags`; what is left over as one hex number.

    `known` masks fields that are decoded elsewhere, such as IOPL.
    """
    names = tuple(flag.name for flag in flags if value & flag.mask)
    rest = unknown_bits(value, flags, known)
    return (*names, f"{rest:#x}") if rest else names
