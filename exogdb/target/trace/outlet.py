"""Where a trace's text goes: a file, or GDB's output while the guest runs, perhaps from another thread.

GDB's output goes to the terminal directly, because GDB prints only on its own thread, which waits for the guest.
Its logging and full-screen mode would miss what goes past GDB: with these the text waits in a queue of limited
length until GDB's event loop prints it. Either way whoever makes text faster than it is taken has to wait.

When the guest stops, GDB says where, on its standard output and past everything that could keep it. Whoever reads
JSON must not see that: an outlet that is `private` has GDB's standard output lead nowhere while the guest runs.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gdb

from exogdb.errors import UsageError
from exogdb.home import expand_home
from exogdb.target.qemu.patient import open_patiently, write_patiently
from exogdb.target.run.main_thread import run_on_main_thread

__all__ = ["LineBuffer", "Outlet", "OutputFile", "open_output_file"]

_LARGEST_QUEUE = 64
_BUFFERED_CHARACTERS = 1 << 14
_STANDARD_OUTPUT = 1


class OutputFile:
    """A file, or a FIFO, that is written while the guest runs. Nothing is kept back."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def write(self, text: str) -> None:
        """Write all of `text`, from any thread.

        :raise OutputError: the disk is full, or whoever reads the FIFO has gone or takes nothing.
        """
        write_patiently(self._descriptor, text.encode("utf-8", "replace"), str(self._path))


@contextmanager
def open_output_file(path: Path) -> Iterator[OutputFile]:
    """Create or empty the file `path`; a FIFO waits for its reader, until Ctrl-C.

    :raise UsageError: it cannot be written.
    """
    try:
        descriptor = open_patiently(expand_home(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield OutputFile(descriptor, path)
    finally:
        os.close(descriptor)


class LineBuffer:
    """Gathers lines for `put`, because one write for each would cost more than the line."""

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put
        self._texts: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Take some text, and pass on what has been gathered if it is much."""
        self._texts.append(text)
        self._size += len(text)
        if self._size >= _BUFFERED_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Pass on what has been gathered."""
        if self._texts:
            text = "".join(self._texts)
            self._texts, self._size = [], 0
            self._put(text)


class Outlet:
    """`write` from any thread. `pump` on GDB's own; while GDB's event loop runs it pumps by itself."""

    def __init__(self, *, private: bool = False) -> None:
        self._is_private = private
        self._is_direct = private or not _is_watched()
        self._descriptor = _STANDARD_OUTPUT
        self._texts: queue.Queue[str] = queue.Queue(_LARGEST_QUEUE)
        self._is_posted = threading.Event()

    def write(self, text: str) -> None:
        """Print `text`; waits while too much is waiting already.

        :raise OutputError: nobody reads GDB's output any more.
        """
        is_gdbs_own = threading.current_thread() is threading.main_thread()
        if self._is_direct:
            if is_gdbs_own:
                gdb.flush()
            write_patiently(self._descriptor, text.encode("utf-8", "replace"), "GDB's output")
        elif is_gdbs_own:
            gdb.write(text)
            gdb.flush()
        else:
            self._texts.put(text)
            if not self._is_posted.is_set():
                self._is_posted.set()
                run_on_main_thread(self.pump)

    def pump(self) -> None:
        """Print what waits, and return at once."""
        self._is_posted.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                gdb.write(self._texts.get_nowait())
        gdb.flush()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around a run of the guest: GDB's own words are lost if the outlet is private.

        Ctrl-C must be held, and no other thread may write when the block is left.
        """
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
