"""One value as text and as JSON: the same everywhere."""

from exogdb.reading import Unavailable, Value
from exogdb.x86.word import MASK_64

__all__ = ["TOUCHED", "hex64", "render_value", "value_to_json"]

# What every screen says that shows a value with the source `rdmsr`.
TOUCHED = (
    "The guest was touched: RDMSR was executed in it, then registers and memory were restored and compared. "
    "A CPU that was halted is awake now."
)


def hex64(value: int) -> str:
    """A 64-bit value as a C literal, without leading zeros: the form that GDB and JSON use.

    >>> hex64(-1)
    '0xffffffffffffffff'
    """
    return f"{value & MASK_64:#x}"


def render_value(value: Value) -> str:
    """16 hex digits, or `unavailable (reason)`.

    >>> from exogdb.reading import Reading
    >>> render_value(Reading(0x200, "qmp"))
    '0x0000000000000200'
    >>> render_value(Unavailable("no QMP socket"))
    'unavailable (no QMP socket)'
    """
    if isinstance(value, Unavailable):
        return f"unavailable ({value.reason})"
    return f"{value.value:#018x}"


def value_to_json(value: Value) -> dict[str, str]:
    """`{"value": "0x..", "source": ".."}`, or `{"unavailable": "reason"}`.

    >>> value_to_json(Unavailable("no QMP socket"))
    {'unavailable': 'no QMP socket'}
    """
    if isinstance(value, Unavailable):
        return {"unavailable": value.reason}
    return {"value": hex64(value.value), "source": value.source}
