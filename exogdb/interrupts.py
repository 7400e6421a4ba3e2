"""Holding Ctrl-C back for as long as something must not be left half done."""

import contextlib
import signal
from collections.abc import Iterator

__all__ = ["interrupts_held", "is_interrupt_pending"]

# GDB leaves what it is doing for any of them: for Ctrl-C, for `kill`, and when its terminal is closed.
_HELD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C pressed inside the block raises KeyboardInterrupt at its end; SIGTERM and SIGHUP end GDB then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # One that came just before this is raised by this very call, inside `try`.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_interrupt_pending() -> bool:
    """Whether one is held back just now."""
    return not _HELD.isdisjoint(signal.sigpending())
