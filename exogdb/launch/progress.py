"""Showing what a guest prints while it boots.

The launcher follows the serial port; only GDB sees when the guest has booted. A file tells the one about the
other: GDB creates it (`announce_boot`) and goes on when the launcher, having shown everything, has removed it.
Without that, GDB's own output would run into the guest's last lines.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from exogdb.launch.deadline import DeadlineExceeded, wait_until

__all__ = ["HINT", "SerialFollower", "announce_boot"]

POLL_SECONDS = 0.02
SHOWN_SECONDS = 2.0
HINT_SECONDS = 10.0
HINT = "The guest has made no system call yet; Ctrl-C stops it where it is, `exo-syscall check` looks for a cause."


def announce_boot(booted: Path) -> None:
    """Create `booted` and return when the follower has removed it; a follower that is gone is no error."""
    booted.touch()
    with suppress(DeadlineExceeded):
        wait_until(lambda: not booted.exists(), SHOWN_SECONDS, "the end of the boot messages")


class SerialFollower:
    """Passes each line of a growing file to `write` until `booted` exists, and removes that.

    A context manager: leaving it ends it too. `has_booted` says, after the end, whether the guest had booted.
    Whoever waits for `HINT_SECONDS` without either is told so.
    """

    def __init__(
        self,
        path: Path,
        write: Callable[[str], object],
        booted: Path,
        hint: Callable[[str], object] = lambda _: None,
        hint_seconds: float = HINT_SECONDS,
    ) -> None:
        self._path = path
        self._write = write
        self._booted = booted
        self._hint = hint
        self._hint_at = time.monotonic() + hint_seconds
        self.has_booted = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="serial", daemon=True)

    def __enter__(self) -> "SerialFollower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _follow(self) -> None:
        with self._path.open("rb") as file:
            rest = b""
            ended = False
            while not ended:
                # Asked before reading: what was printed before the end is still shown.
                ended = self._booted.exists() or self._left.wait(POLL_SECONDS)
                *lines, rest = (rest + file.read()).split(b"\n")
                for line in lines:
                    self._write(line.decode(errors="replace").rstrip("\r"))
                if not ended and time.monotonic() >= self._hint_at:
                    self._hint_at = float("inf")
                    self._hint(HINT)
        self.has_booted = self._booted.exists()
        self._booted.unlink(missing_ok=True)
