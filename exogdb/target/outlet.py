"""Text for GDB's output that is made while the guest runs, perhaps on another thread.

It goes to the terminal directly: a Ctrl-C that comes while GDB runs Python on its own thread ends that Python and
not the guest's run, so none should run there. GDB's logging and full-screen mode would miss what goes past GDB:
with these the text waits in a queue of limited length until GDB's event loop prints it. Either way whoever makes
text faster than the terminal takes it has to wait.

When the guest stops, GDB says where, on its standard output and past everything that could keep it. Whoever reads
JSON must not see that: an outlet that is `private` has GDB's standard output lead nowhere while the guest runs.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gdb

__all__ = ["Outlet"]

_LARGEST_QUEUE = 64
_STANDARD_OUTPUT = 1


class Outlet:
    """`write` from any thread. `pump` on GDB's own; while GDB's event loop runs it pumps by itself."""

    def __init__(self, *, private: bool = False) -> None:
        self._is_private = private
        self._is_direct = private or not _is_watched()
        self._descriptor = _STANDARD_OUTPUT
        self._texts: queue.Queue[str] = queue.Queue(_LARGEST_QUEUE)
        self._is_posted = threading.Event()

    def write(self, text: str) -> None:
        """Print `text`; waits while too much is waiting already."""
        if threading.current_thread() is threading.main_thread() and not self._is_private:
            gdb.write(text)
            gdb.flush()
        elif self._is_direct:
            _write_all(self._descriptor, text.encode("utf-8", "replace"))
        else:
            self._texts.put(text)
            if not self._is_posted.is_set():
                self._is_posted.set()
                gdb.post_event(self._pump_in_event_loop)

    def pump(self) -> None:
        """Print what waits, and return at once."""
        self._is_posted.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                gdb.write(self._texts.get_nowait())
        gdb.flush()

    def _pump_in_event_loop(self) -> None:
        try:
            self.pump()
        except KeyboardInterrupt:
            # Ctrl-C came while Python ran, which has swallowed it; GDB's own handling of it is to stop the guest.
            thread = gdb.selected_thread()
            if thread is not None and thread.is_running():
                gdb.execute("interrupt", to_string=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around a run of the guest: GDB's own words are lost if the outlet is private."""
        gdb.flush()
        if not self._is_private:
            yield
            return
        self._descriptor = os.dup(_STANDARD_OUTPUT)
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, _STANDARD_OUTPUT)
        try:
            yield
        finally:
            gdb.flush()
            os.dup2(self._descriptor, _STANDARD_OUTPUT)
            os.close(self._descriptor)
            os.close(nowhere)
            self._descriptor = _STANDARD_OUTPUT


def _is_watched() -> bool:
    """Whether something besides the terminal wants GDB's output."""
    if gdb.parameter("logging enabled"):
        return True
    try:
        return "not active" not in gdb.execute("info win", to_string=True)
    except gdb.error:
        return False  # a GDB without the full-screen mode


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
