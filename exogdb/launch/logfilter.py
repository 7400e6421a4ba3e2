"""The addresses that QEMU's execution log is to be limited to, so that system calls can be traced without stops.

`-dfilter` can only be given when QEMU starts; the log itself is switched on and off while it runs. The filter
alone costs nothing and writes nothing.
"""

from exogdb.abi.entry import find_entry_path
from exogdb.errors import AnalysisError
from exogdb.launch.image import Image
from exogdb.trace.points import TracePoints

__all__ = ["find_trace_points", "log_filter"]


def find_trace_points(image: Image) -> TracePoints | None:
    """Where system calls enter `image` and where its dispatcher returns to, from the code in the file.

    None when the entry is not known. Without returns when the code could not be followed: calls can then still be
    counted, but not paired.
    """
    if image.entry is None:
        return None
    try:
        dispatcher = find_entry_path(image.elf, image.entry).dispatcher
    except AnalysisError:
        dispatcher = None
    returns = frozenset({dispatcher.return_address} if dispatcher is not None else ())
    return TracePoints(image.entry, returns)


def log_filter(image: Image) -> tuple[str, ...]:
    """QEMU's `-dfilter` option for `image`; empty when the entry is not known."""
    points = find_trace_points(image)
    return ("-dfilter", points.dfilter) if points is not None else ()
