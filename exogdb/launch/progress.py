"""Showing what a guest prints while it boots."""

import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["SerialFollower"]

POLL_SECONDS = 0.02


class SerialFollower:
    """Passes each line of a growing file to `write`, until `done()`; a context manager that ends with it."""

    def __init__(self, path: Path, write: Callable[[str], object], done: Callable[[], bool]) -> None:
        self._path = path
        self._write = write
        self._done = done
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
                ended = self._done() or self._left.wait(POLL_SECONDS)
                *lines, rest = (rest + file.read()).split(b"\n")
                for line in lines:
                    self._write(line.decode(errors="replace").rstrip("\r"))
