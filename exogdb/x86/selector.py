"""Segment selectors.

::

    15                       3   2   1  0
    +------------------------+----+------+
    |         index          | TI | RPL  |      TI: 0 = GDT, 1 = LDT
    +------------------------+----+------+

Source: Intel SDM Vol. 3A, Segment Selectors.
"""

from dataclasses import dataclass

__all__ = ["Selector"]


@dataclass(frozen=True)
class Selector:
    """A 16-bit segment selector.

    >>> str(Selector(0x2b))
    '0x002b (GDT 5, RPL 3)'
    """

    value: int

    @property
    def index(self) -> int:
        """Number of the 8-byte descriptor in its table."""
        return self.value >> 3

    @property
    def offset(self) -> int:
        """Byte offset of the descriptor in its table."""
        return self.value & 0xFFF8

    @property
    def in_ldt(self) -> bool:
        """The table is the LDT, not the GDT."""
        return bool(self.value & 4)

    @property
    def rpl(self) -> int:
        """Requested privilege level, 0 to 3."""
        return self.value & 3

    @property
    def is_null(self) -> bool:
        """Selectors 0 to 3 point at no descriptor."""
        return self.value & 0xFFFC == 0

    def __str__(self) -> str:
        if self.is_null:
            return f"{self.value:#06x} (null, RPL {self.rpl})"
        return f"{self.value:#06x} ({'LDT' if self.in_ldt else 'GDT'} {self.index}, RPL {self.rpl})"
