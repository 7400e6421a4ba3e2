"""Writing to whoever may be slow: waits as long as it takes, but can be told by Ctrl-C that nobody is there."""

import contextlib
import errno
import os
import select
import stat
import time
from pathlib import Path

from exogdb.errors import OutputError
from exogdb.interrupts import take_ctrl_c
from exogdb.target.run.ctrl_c import is_ctrl_c_pending

__all__ = ["open_patiently", "write_patiently"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_LOOK_MS = 50
_PATIENCE_SECONDS = 1.0
_PIECE_BYTES = select.PIPE_BUF  # so much can be written without waiting where poll() says that writing is possible


def open_patiently(path: Path) -> int:
    """A descriptor to write to `path`, which is created or emptied. A FIFO is waited for until it has a reader.

    :raise OSError: it cannot be opened.
    :raise OutputError: Ctrl-C (`exogdb.target.run.ctrl_c`) ended the wait for a reader.
    """
    while True:
        try:
            descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a FIFO without a reader
                raise
        else:
            os.set_blocking(descriptor, True)
            return descriptor
        if take_ctrl_c():
            raise OutputError(f"{path} is a FIFO that nobody reads")
        time.sleep(_LOOK_MS / 1000)


def write_patiently(descriptor: int, data: bytes, name: str) -> None:
    """Write all of `data` to a file, terminal, pipe or FIFO that `name` names in messages. From any thread.

    It waits for a reader that is slow. Once Ctrl-C is pending (`exogdb.target.run.ctrl_c`), a reader that takes
    nothing for a second is given up.

    :raise OutputError: the disk is full, the reader has gone or was given up; not all of `data` has been written.
    """
    view = memoryview(data)
    piece = len(view) if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIECE_BYTES
    try:
        while view:
            _wait_until_writable(descriptor, name)
            with contextlib.suppress(BlockingIOError):  # somebody has made it so, and somebody else was faster
                view = view[os.write(descriptor, view[:piece]) :]
    except OSError as error:
        raise OutputError(f"{name} cannot be written any more: {error.strerror}") from error


def _wait_until_writable(descriptor: int, name: str) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    given_up = None
    while not poll.poll(_LOOK_MS):
        if given_up is None and is_ctrl_c_pending():
            given_up = time.monotonic() + _PATIENCE_SECONDS
        if given_up is not None and time.monotonic() >= given_up:
            raise OutputError(f"whoever reads {name} takes nothing: the rest of the trace is not written")
