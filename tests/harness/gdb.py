"""A real GDB as a subprocess, one command at a time.

Commands go down a pipe to GDB's standard input, as a user would type them. After each one a marker that
occurs nowhere else is printed on both standard output and standard error; what came before it is that
command's exact output. No prompt has to be recognised, so no output can be mistaken for one.
"""

import fcntl
import itertools
import json
import os
import re
import secrets
import select
import signal
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from exogdb.launch.deadline import wait_until
from tests.harness.warm import GdbProcess, start_cold, start_warm

__all__ = ["NO_SOURCE", "Gdb", "GdbFailure", "Reply"]

QUIET = (
    "set prompt",
    "set confirm off",
    "set pagination off",
    "set width 0",
    "set height 0",
    "set style enabled off",
    "set debuginfod enabled off",
    "set breakpoint pending off",
)
NO_SOURCE = re.compile(r"\d+\t.*: No such file or directory\.")
START_SECONDS = 30.0
COMMAND_SECONDS = 30.0
MOMENT_SECONDS = 0.01
POLL = "7"
# The tests' own Python is none of GDB's business, and without a cache GDB compiles the plugin at every start.
NOT_FOR_GDB = {"PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}


class GdbFailure(AssertionError):
    """GDB did not do what the test asked; the message ends with the whole conversation."""


@dataclass(frozen=True)
class Reply:
    """What one command printed: `out` to standard output, `err` to standard error (errors, warnings)."""

    out: str
    err: str

    @property
    def failed(self) -> bool:
        """Whether GDB reported an error: anything on standard error that is not a warning.

        Stopping in a library whose source is not installed is no error, though GDB says so there.
        """
        lines = (line for line in self.err.splitlines() if line.strip())
        return any(not (line.startswith("warning:") or NO_SOURCE.fullmatch(line)) for line in lines)


class Gdb:
    """One GDB process. Usable as a context manager; leaving it ends GDB."""

    def __init__(
        self,
        arguments: Sequence[str | Path] = (),
        binary: str = "gdb",
        cwd: Path | None = None,
        *,
        warm: bool = False,
    ) -> None:
        """Start `binary -nx -q` with `arguments` after the settings that keep output plain.

        `warm` forks one that has done all that before, if there is one: see `tests.harness.warm`.
        """
        settings = [word for command in QUIET for word in ("-iex", command)]
        self.transcript: list[str] = []
        self._marks = itertools.count(1)
        self._token = secrets.token_hex(8)
        self._pending: list[str] = []
        command = (binary, "-nx", "-q", *settings)
        kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_GDB}
        environment = kept | {"TMPDIR": _scratch().name}
        self._process: GdbProcess = (
            _warm(command, arguments, environment)
            if warm
            else start_cold((*command, *map(str, arguments)), environment, cwd)
        )
        self._buffers: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._streams = {"out": _not_blocking(self._process.stdout), "err": _not_blocking(self._process.stderr)}
        self.start("")
        self.banner = self.finish(START_SECONDS)

    def __enter__(self) -> "Gdb":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """GDB's process id."""
        return self._process.pid

    def run(self, command: str, seconds: float = COMMAND_SECONDS) -> str:
        """Standard output of `command`, which must not fail.

        :raise GdbFailure: GDB reported an error, ended, or took longer than `seconds`.
        """
        reply = self.reply(command, seconds)
        if reply.failed:
            raise self._failure(f"{command!r} failed: {reply.err.strip()}")
        return reply.out

    def fails(self, command: str, seconds: float = COMMAND_SECONDS) -> str:
        """The error that `command` must end with, without the last newline."""
        reply = self.reply(command, seconds)
        if not reply.failed:
            raise self._failure(f"{command!r} was expected to fail")
        return reply.err.strip()

    def json(self, command: str, seconds: float = COMMAND_SECONDS) -> Any:
        """`command --json`, parsed; its output must be one JSON document and nothing else."""
        text = self.run(command if "--json" in command.split() else f"{command} --json", seconds)
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._failure(f"{command!r} did not print one JSON document: {error}") from error

    def reply(self, command: str, seconds: float = COMMAND_SECONDS) -> Reply:
        """Both outputs of `command`, whether it failed or not."""
        self.start(command)
        return self.finish(seconds)

    def start(self, command: str) -> int:
        """Type `command` and do not wait for it; answers how many bytes were typed, the marker's included."""
        mark = f"{self._token}-{next(self._marks)}"
        self._pending.append(mark)
        self.transcript.append(f"(gdb) {command}\n")
        lines = f'{command}\necho {mark}\\n\npython import sys; sys.stderr.write("{mark}\\n")\n'
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(lines.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("GDB has ended") from error
        return len(lines.encode())

    def finish(self, seconds: float = COMMAND_SECONDS) -> Reply:
        """Wait for the oldest command that was started and is not finished."""
        mark = self._pending.pop(0)
        deadline = time.monotonic() + seconds
        while not self._done(mark):
            self._receive(deadline, "err")  # where the mark is printed last
        reply = Reply(self._take("out", mark), self._take("err", mark))
        self.transcript.append(reply.out + reply.err)
        return reply

    def wait_output(self, text: str, seconds: float = COMMAND_SECONDS) -> None:
        """Wait until the command in progress has printed `text`, without finishing it."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._buffers["out"]:
            self._receive(deadline, "out", "err")

    def resume(self, command: str = "continue", seconds: float = COMMAND_SECONDS) -> None:
        """Start `command` and return when the guest runs and GDB waits for it.

        GDB loses a Ctrl-C that arrives between its "Continuing." and that wait; tests that interrupt
        need to know when it is over.
        """
        typed = self.start(command)
        wait_until(lambda: self.has_read(typed) and self._waits_for_events(), seconds, f"{command!r} running")

    def has_read(self, typed: int) -> bool:
        """Whether GDB has begun to read what `start` typed. Ctrl-C before that is none of that command's."""
        return self._unread() < typed

    def interrupt(self) -> None:
        """Ctrl-C, at whatever moment this is. See `resume`."""
        os.kill(self._process.pid, signal.SIGINT)

    def integer(self, expression: str) -> int:
        """The bits of an expression, unsigned, in GDB's own words: truth that needs no plugin."""
        text = self.run(f"output/x {expression}")
        try:
            return int(text, 16)
        except ValueError:
            raise self._failure(f"{expression!r} is no integer: {text!r}") from None

    def word(self, symbol: str) -> int:
        """The u64 at `symbol`, found by its name in the ELF symbol table: `gdb.word("SYSCALL_COUNT")`."""
        return self._in_c(f"*(unsigned long long *)&'{symbol}'")

    def address(self, symbol: str) -> int:
        """Where `symbol` is."""
        return self._in_c(f"(unsigned long long)&'{symbol}'")

    def _in_c(self, expression: str) -> int:
        # Leaving `with`, GDB may add a warning that the frame is in another language.
        return int(self.run(f"with language c -- output/x {expression}").partition("Warning")[0], 16)

    def memory(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`, read with GDB's `x` command: by words if it can be, which takes an eighth."""
        unit, letter = (8, "g") if size % 8 == 0 else (1, "b")
        text = self.run(f"x/{size // unit}x{letter} {address:#x}")
        words = (int(word, 16) for line in text.splitlines() for word in line.split(":")[-1].split())
        return b"".join(word.to_bytes(unit, "little") for word in words)

    def wait_exit(self, seconds: float = COMMAND_SECONDS) -> None:
        """Wait until GDB has ended by itself.

        :raise DeadlineExceeded: it has not.
        """
        wait_until(lambda: self._process.poll() is not None, seconds, "GDB's end")

    def close(self) -> None:
        """End GDB, leaving the guest to whoever started it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _done(self, mark: str) -> bool:
        return all(_position(buffer, mark) >= 0 for buffer in self._buffers.values())

    def _unread(self) -> int:
        """Bytes that were typed and that GDB has not read."""
        assert self._process.stdin is not None
        answer = fcntl.ioctl(self._process.stdin.fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def _waits_for_events(self) -> bool:
        # GDB's event loop is the only place where it polls without a limit (third argument -1).
        words = Path(f"/proc/{self._process.pid}/syscall").read_text().split()
        # The limit is an int; depending on GDB's build the upper half of the register is its sign or zero.
        return words[0] == POLL and int(words[3], 16) & 0xFFFFFFFF == 0xFFFFFFFF

    def _receive(self, deadline: float, *woken_by: str) -> None:
        """Take what there is once one of the streams `woken_by` has something, or after a moment.

        GDB writes a line in twenty pieces, and to be woken by each of them takes longer than all the rest.
        """
        if time.monotonic() >= deadline:
            raise self._failure("GDB did not finish the command in time")
        select.select([self._streams[name] for name in woken_by], [], [], MOMENT_SECONDS)
        for name, stream in self._streams.items():
            with suppress(BlockingIOError):
                data = os.read(stream, 1 << 16)
                if not data:
                    raise self._failure(f"GDB ended (status {self._process.wait(COMMAND_SECONDS)})")
                self._buffers[name] += data

    def _take(self, name: str, mark: str) -> str:
        buffer = self._buffers[name]
        position = _position(buffer, mark)
        text = buffer[:position].decode(errors="replace")
        del buffer[: position + len(mark) + 1]
        return text

    def _failure(self, message: str) -> GdbFailure:
        rest = "".join(buffer.decode(errors="replace") for buffer in self._buffers.values())
        return GdbFailure(f"{message}\n--- GDB ---\n{''.join(self.transcript)}{rest}")


def _not_blocking(stream: IO[bytes] | None) -> int:
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    return stream.fileno()


def _position(buffer: bytearray, mark: str) -> int:
    return buffer.find(f"{mark}\n".encode())


@cache
def _scratch() -> "TemporaryDirectory[str]":
    """For what GDBs leave behind when they are killed, as they are here; removed when the tests are done."""
    return TemporaryDirectory(prefix="exogdb-", ignore_cleanup_errors=True)


def _warm(command: tuple[str, ...], arguments: Sequence[str | Path], environment: dict[str, str]) -> GdbProcess:
    """The plugin, which every GDB has, comes first; what follows differs from kernel to kernel."""
    words = iter(arguments)
    loading = [str(next(words)) if word == "-ex" else f"file {word}" for word in words]
    plugin = [each for each in loading if each.startswith("source ")]
    first = (*command, *(word for each in plugin for word in ("-ex", each)))
    return start_warm(first, tuple(each for each in loading if each not in plugin), environment)
