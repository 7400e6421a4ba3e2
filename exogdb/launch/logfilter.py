"""The addresses that QEMU's execution log is to be limited to, so that system calls can be traced without stops.

`-dfilter` can only be given when QEMU starts; the log itself is switched on and off while it runs. The filter
alone costs nothing and writes nothing.
"""

from dataclasses import replace

from exogdb.abi.stub.entry import find_entry_path
from exogdb.errors import AnalysisError
from exogdb.launch.image import Image
from exogdb.trace import points
from exogdb.trace.points import EXEC_HANDLERS, TracePoints

__all__ = ["find_trace_points", "log_filter"]


def find_trace_points(image: Image) -> TracePoints | None:
    """Where system calls enter `image` and where its dispatcher returns to, from the code in the file.

    None when the entry is not known. Without returns when the code could not be followed: calls can then still be
    counted, but not paired.
    """
    if image.entry is None:
        return None
    handlers = frozenset(image.elf.symbols[name] for name in EXEC_HANDLERS if name in image.elf.symbols)
    try:
        return replace(points.find_trace_points(find_entry_path(image.elf, image.entry)), handlers=handlers)
    except AnalysisError:
        return TracePoints(image.entry, frozenset())


def log_filter(image: Image) -> tuple[str, ...]:
    """QEMU's `-dfilter` option for `image`; empty when the entry is not known."""
    found = find_trace_points(image)
    return ("-dfilter", found.dfilter) if found is not None else ()
