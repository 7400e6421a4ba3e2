"""Waiting for a condition, never for a time.

>>> wait_until(lambda: True, 1.0, "nothing at all")
>>> wait_until(lambda: False, 0.0, "the impossible")
Traceback (most recent call last):
    ...
exogdb.launch.deadline.DeadlineExceeded: no sign of the impossible after 0 seconds
"""

import time
from collections.abc import Callable

__all__ = ["DeadlineExceeded", "wait_until"]

POLL_SECONDS = 0.005


class DeadlineExceeded(TimeoutError):
    """The condition did not come true in time; `what` is what was waited for."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"no sign of {what} after {seconds:g} seconds")
        self.what = what
        self.seconds = seconds


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as `condition()` is true; it is asked every 5 ms.

    :raise DeadlineExceeded: it was still false after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(what, seconds)
        time.sleep(POLL_SECONDS)
