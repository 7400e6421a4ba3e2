"""A program on a pseudo-terminal: what a user at a keyboard sees and types."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Terminal"]

OUTPUT_SECONDS = 30.0


def _prepare() -> None:
    """Make standard input the terminal that controls this session, or Ctrl-C would reach nobody.

    Tests that run under `nohup` ignore SIGHUP, and what they start would, too.
    """
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Terminal:
    """Runs `command` with a terminal as its standard input, output and error. A context manager."""

    def __init__(
        self, command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        self.output = ""
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**os.environ, "TERM": "dumb", **(environment or {})},
            start_new_session=True,
            preexec_fn=_prepare,
        )
        os.close(slave)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            # GDB 13 asks whether to go on SIGTERM, and crashes if it was told not to ask.
            self.process.send_signal(signal.SIGHUP)
        self.wait_exit()  # reading on: a program that restores its terminal waits until all it wrote was taken
        os.close(self._master)

    def wait_for(self, text: str, seconds: float = OUTPUT_SECONDS) -> str:
        """Everything from the last `wait_for` up to and including `text`."""
        deadline = time.monotonic() + seconds
        start = 0
        while (position := self.output.find(text, start)) < 0:
            start = max(0, len(self.output) - len(text))
            if not self._receive(deadline - time.monotonic()):
                raise AssertionError(f"no {text!r} on the terminal:\n{self.output}")
        seen = self.output[: position + len(text)]
        self.output = self.output[len(seen) :]
        return seen

    def type(self, line: str) -> None:
        """Type `line` and Enter."""
        os.write(self._master, f"{line}\n".encode())

    def press(self, key: str) -> None:
        """Send one key without Enter."""
        os.write(self._master, key.encode())

    def settings(self) -> list[Any]:
        """Echo, line editing and all else that termios(3) knows of the terminal."""
        return termios.tcgetattr(self._master)

    def wait_exit(self, seconds: float = OUTPUT_SECONDS) -> int:
        """The program's exit status; what it prints meanwhile is kept in `output`."""
        deadline = time.monotonic() + seconds
        while self._receive(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _receive(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            # Linux reports EIO when the last process has closed the terminal.
            return False
        self.output += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
