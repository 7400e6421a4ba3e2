"""What the clock of a trace counts, and how that is written."""

from enum import Enum

__all__ = ["Unit", "format_ns"]


class Unit(Enum):
    """Nanoseconds, or instructions that the guest has executed. Times and latencies of a call are in it."""

    NANOSECONDS = "ns"
    INSTRUCTIONS = "instructions"

    def format(self, amount: int) -> str:
        """With its unit; `short` for 0, which is no measurement (`exogdb.trace.summary`).

        >>> Unit.NANOSECONDS.format(0), Unit.NANOSECONDS.format(870), Unit.INSTRUCTIONS.format(1340)
        ('short', '870 ns', '1,340')
        """
        if not amount:
            return "short"
        return format_ns(amount) if self is Unit.NANOSECONDS else f"{amount:,}"


def format_ns(nanoseconds: int) -> str:
    """A duration with three significant digits and its unit.

    >>> format_ns(870), format_ns(12_345), format_ns(2_500_000_000)
    ('870 ns', '12.3 us', '2.50 s')
    """
    value, unit = float(nanoseconds), "ns"
    for larger in ("us", "ms", "s"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    if unit == "ns":
        return f"{nanoseconds} ns"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
