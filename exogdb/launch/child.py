"""Programs that end with the launcher, even if that is killed, and a terminal that is left as it was found."""

import ctypes
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["dying_with_parent", "kept_terminal"]

_PR_SET_PDEATHSIG = 1  # prctl(2)


def dying_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a new process has to do, between fork and exec, to get signal `number` when this thread ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(number))


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Give the terminal on standard input, if it is one, the settings back that it had before the block.

    GDB edits its command line with echo off, and cannot switch that on again when it crashes or is killed.
    """
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, OSError):
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
