"""A GDB of its own for each test, without the half second that loading symbols and plugin takes.

One GDB loads them and then only waits. For each test it forks: the child is a GDB in exactly the state that the
first one had when everything was loaded, gets pipes of its own, and goes on with its standard input. Nothing that
a test does can reach the next one. The libraries that commands import when they need them are imported as well.

Two forks of one GDB would share the pipes by which it wakes its own event loop, so it forks again only when the
last child has ended; whoever needs a second GDB at the same time starts another. `EXOGDB_COLD=1` starts every GDB
anew.
"""

import atexit
import os
import signal
import socket
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import IO, Protocol

__all__ = ["GdbProcess", "start_cold", "start_warm"]

START_SECONDS = 60.0
FORK_SECONDS = 30.0
# Each holds the symbols of one build of the kernel; tests seldom alternate between more.
MOST_PARENTS = 4

# Runs in GDB.
SERVE = """
def _serve(number):
    import importlib, os, socket
    for name in ("capstone", "unicorn", "tabulate", "pygments.lexers", "qemu.qmp"):
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a GDB without the plugin
    with socket.socket(fileno=number) as control:
        control.send(b"ready")
        while True:
            _, pipes, _, _ = socket.recv_fds(control, 16, 3)
            if not pipes:
                os._exit(0)
            child = os.fork()
            if child == 0:
                control.close()
                os.setsid()
                for place, pipe in enumerate(pipes):
                    os.dup2(pipe, place)
                    os.close(pipe)
                return
            for pipe in pipes:
                os.close(pipe)
            control.send(str(child).encode())
            _, status = os.waitpid(child, 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
"""


class GdbProcess(Protocol):
    """What the harness needs of a running GDB; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


def start_cold(
    command: tuple[str, ...], environment: dict[str, str], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """A GDB as a user starts it."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment,
        start_new_session=True,
    )


def start_warm(command: tuple[str, ...], environment: dict[str, str]) -> GdbProcess:
    """A GDB that has done what `command` says, and reads its next command from its standard input."""
    if os.environ.get("EXOGDB_COLD"):
        return start_cold(command, environment)
    parent = _PARENTS.pop(command, None) or _Parent(command, environment)
    _PARENTS[command] = parent
    for other in [name for name, each in _PARENTS.items() if not each.is_busy][: len(_PARENTS) - MOST_PARENTS]:
        _PARENTS.pop(other).close()
    return start_cold(command, environment) if parent.is_busy else parent.fork()


class _Parent:
    """The GDB that has loaded everything, and forks."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        # From the start: threads that still index symbols are missing in the child, which waits for them.
        alone = (command[0], "-iex", "maint set worker-threads 0", *command[1:])
        serve = ("-ex", f"python exec({SERVE!r}, globals())", "-ex", f"python _serve({number})")
        self._process = subprocess.Popen(
            [*alone, *serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[number],
            start_new_session=True,
        )
        theirs.close()
        self._child: _Child | None = None
        _expect(self._control, START_SECONDS, f"{' '.join(command)} to have loaded")

    @property
    def is_busy(self) -> bool:
        """Whether the last child still runs."""
        return self._child is not None and self._child.poll() is None

    def fork(self) -> GdbProcess:
        """The next child, with its pipes."""
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        theirs = [stdin[0], stdout[1], stderr[1]]
        socket.send_fds(self._control, [b"fork"], theirs)
        for pipe in theirs:
            os.close(pipe)
        pid = int(_expect(self._control, FORK_SECONDS, "a forked GDB"))
        streams = os.fdopen(stdin[1], "wb"), os.fdopen(stdout[0], "rb"), os.fdopen(stderr[0], "rb")
        self._child = _Child(pid, self._control, streams)
        return self._child

    def close(self) -> None:
        """End the GDB that forks."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class _Child:
    """A forked GDB. Its parent tells when it has ended, and with what status."""

    def __init__(self, pid: int, control: socket.socket, streams: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self._control = control
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self._status is None:
            self._control.setblocking(False)
            try:
                self._status = int(self._control.recv(16))
            except BlockingIOError:
                return None
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        if self._status is None:
            self._status = int(_expect(self._control, timeout, "the end of a forked GDB"))
        return self._status

    def kill(self) -> None:
        """End it at once."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)


_PARENTS: OrderedDict[tuple[str, ...], _Parent] = OrderedDict()


@atexit.register
def _close_parents() -> None:
    for parent in _PARENTS.values():
        parent.close()


def _expect(control: socket.socket, seconds: float | None, what: str) -> bytes:
    control.settimeout(seconds)
    try:
        data = control.recv(16)
    except TimeoutError:
        raise TimeoutError(f"no sign of {what} after {seconds} seconds") from None
    assert data, f"no sign of {what}: GDB has ended"
    return data
