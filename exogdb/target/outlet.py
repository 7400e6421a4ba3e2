"""Text for GDB's output that is made while the guest runs, perhaps on another thread.

GDB's output may be written on GDB's own thread only, so that text from another one waits in a queue of limited
length until GDB's event loop prints it: whoever makes it faster than the terminal takes it has to wait.

When the guest stops, GDB says where, on its standard output and past everything that could keep it. Whoever reads
JSON must not see that: an outlet that is `private` writes to the terminal itself, and has GDB's standard output
lead nowhere while the guest runs.
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
        self._descriptor = _STANDARD_OUTPUT
        self._texts: queue.Queue[str] = queue.Queue(_LARGEST_QUEUE)
        self._is_posted = threading.Event()

    def write(self, text: str) -> None:
        """Print `text`; waits while too much is waiting already."""
        if self._is_private:
            _write_all(self._descriptor, text.encode("utf-8", "replace"))
        elif threading.current_thread() is threading.main_thread():
            gdb.write(text)
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
        if not self._is_private:
            yield
            return
        gdb.flush()
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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
