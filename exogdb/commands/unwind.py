"""Backtraces across the system-call boundary: the unwinder, and the filter that names the boundary.

No command of its own: `bt` uses both.
"""

from collections.abc import Iterator

import gdb
import gdb.unwinder

from exogdb.interrupts import interrupts_held, undisturbed
from exogdb.target.analysed import analysed_paths
from exogdb.target.call.unwinder import StubUnwinder
from exogdb.target.connection import is_remote

TYPE_CHECKING = False  # importing it takes longer than this module
if TYPE_CHECKING:
    from gdb.FrameDecorator import DAPFrameDecorator, FrameDecorator

    _Frames = Iterator[FrameDecorator | DAPFrameDecorator]

__all__ = ["BoundaryFilter", "install"]


class BoundaryFilter:
    """GDB's frame filter that decorates boundary frames and lets every other frame pass."""

    name = "exo-syscall"
    priority = 100

    def __init__(self) -> None:
        self._wanted = True

    @property
    def enabled(self) -> bool:
        """Only for backtraces that cross: with any filter enabled GDB prints all others differently."""
        if not self._wanted or not analysed_paths():
            return False
        with interrupts_held():
            from exogdb.commands.boundary import find_boundary
        return find_boundary() is not None

    @enabled.setter
    def enabled(self, wanted: bool) -> None:
        self._wanted = wanted

    def filter(self, iterator: "_Frames") -> "_Frames":
        """Called by GDB with the frames of a backtrace, innermost first."""
        with interrupts_held():
            from exogdb.commands.boundary import decorate_frames
        return decorate_frames(iterator)


@undisturbed
def _on_stop(_event: gdb.StopEvent) -> None:
    """Runs after every stop that the user sees."""
    if is_remote():
        from exogdb.commands.boundary import learn_boundary

        learn_boundary()


def install() -> None:
    """Make `bt` cross the boundary: unwinder, frame filter, and learning at each stop."""
    gdb.unwinder.register_unwinder(None, StubUnwinder(), True)
    gdb.frame_filters[BoundaryFilter.name] = BoundaryFilter()
    gdb.events.stop.connect(_on_stop)


install()
