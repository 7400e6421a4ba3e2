"""The 64-bit word: what registers and addresses are counted in."""

__all__ = ["MASK_64", "to_signed"]

MASK_64 = (1 << 64) - 1


def to_signed(value: int) -> int:
    """A 64-bit pattern as a signed number.

    >>> to_signed(0xffffffffffffffda)
    -38
    """
    value &= MASK_64
    return value - (1 << 64) if value >> 63 else value
