"""Ctrl-C held back while something must not be left half done.

Neither GDB nor Python notices a signal that is held. It stays pending, and whoever holds it looks for it where
that is safe. GDB's worker threads hold SIGINT for good, so it cannot slip past.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CTRL_C", "ctrl_c_held", "is_ctrl_c_pending", "no_signals", "take_ctrl_c"]

CTRL_C = "Ctrl-C"


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Hold it inside the block, on GDB's own thread. One that was not taken arrives afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def no_signals() -> Iterator[None]:
    """A thread that is started inside the block leaves every signal to GDB's own thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_ctrl_c_pending() -> bool:
    """Whether it has come while it is held. From any thread; changes nothing."""
    return signal.SIGINT in signal.sigpending()


def take_ctrl_c() -> bool:
    """The same, and it is then gone."""
    return signal.sigtimedwait({signal.SIGINT}, 0) is not None
