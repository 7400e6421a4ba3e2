"""A GDB of its own for each test, without the half second that loading plugin and symbols takes.

One GDB loads the plugin and then only waits. For each build of the kernel it forks another one, which loads that
build's symbols and waits as well; and that one forks for each test. The child is a GDB in exactly the state that
its parent had when everything was loaded, gets pipes of its own, and goes on with its standard input. Nothing
that a test does can reach the next one. What would be imported at first use, exogdb's modules and libraries, is
imported as well. `EXOGDB_COLD=1` starts every GDB anew.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

__all__ = ["GdbProcess", "start_cold", "start_warm"]

START_SECONDS = 60.0
FORK_SECONDS = 30.0
# Each holds the symbols of one build of the kernel, which take a third of a second to read and little memory.
MOST_PARENTS = 24

# Runs in GDB. Each message is a JSON list whose first item says what to do.
SERVE = """
def _serve(number):
    import gc, importlib, json, os, pkgutil, socket
    try:
        names = ["capstone", "unicorn", "tabulate", "pygments.lexers", "qemu.qmp"]
        for package in ("exogdb.commands", "exogdb.target", "exogdb.view"):
            path = importlib.import_module(package).__path__
            names += [each.name for each in pkgutil.walk_packages(path, f"{package}.")]
        for name in names:
            importlib.import_module(name)
    except ImportError:
        pass  # a GDB without the plugin
    # Else each child's first look for garbage is a copy of everything that was imported.
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=number)
    control.send(b"ready")
    while True:
        message, files, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not message:
            os._exit(0)
        what, *words = json.loads(message)
        if what == "wait":
            _, status = os.waitpid(words[0], 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        child = os.fork()
        if child:
            for each in files:
                os.close(each)
            control.send(str(child).encode())
            continue
        control.close()
        os.setsid()
        _renew_pipes()
        if what == "fork":
            for place, each in enumerate(files):
                os.dup2(each, place)
                os.close(each)
            return
        control = socket.socket(fileno=files[0])
        try:
            for command in words:
                gdb.execute(command)
        except gdb.error as error:
            control.send(str(error).encode())
            os._exit(1)
        _read_lines_of("syscall_dispatch")
        control.send(b"ready")

def _read_lines_of(function):
    # GDB reads a unit's symbols when an address in it is first shown, which attaching does at once.
    try:
        gdb.execute(f"info line {function}", to_string=True)
    except gdb.error:
        pass  # a kernel that has no such function, or no symbols

def _renew_pipes():
    # GDB wakes its own event loop through pipes; two processes that shared one would steal each other's Ctrl-C.
    import collections, fcntl, os, select
    ends = collections.defaultdict(list)
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the directory itself
        if target.startswith("pipe:"):
            ends[target].append(int(name))
    for both in ends.values():
        if len(both) == 2:
            old = sorted(both, key=lambda end: fcntl.fcntl(end, fcntl.F_GETFL) & os.O_ACCMODE)
            is_set = bool(select.select([old[0]], [], [], 0)[0])
            for new, end in zip(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC), old):
                os.dup2(new, end, inheritable=False)
                os.close(new)
            if is_set:
                os.write(old[1], b"+")
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
    command: Sequence[str], environment: dict[str, str], cwd: Path | None = None
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


def start_warm(command: tuple[str, ...], loading: tuple[str, ...], environment: dict[str, str]) -> GdbProcess:
    """A GDB that was started as `command`, has done what `loading` says, and reads its standard input.

    :param loading: GDB commands that differ from build to build, such as `file`.
    """
    if os.environ.get("EXOGDB_COLD"):
        return start_cold((*command, *(word for each in loading for word in ("-ex", each))), environment)
    parent = _PARENTS.pop((command, loading), None) or _root(command, environment).branch(loading)
    _PARENTS[command, loading] = parent
    idle = [name for name, each in _PARENTS.items() if not each.is_busy]
    for name in idle[: len(_PARENTS) - MOST_PARENTS]:
        _PARENTS.pop(name).close()
    return parent.fork()


def _root(command: tuple[str, ...], environment: dict[str, str]) -> "_Parent":
    if command not in _ROOTS:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        # From the start: threads that still index symbols are missing in the child, which waits for them.
        alone = (command[0], "-iex", "maint set worker-threads 0", *command[1:])
        serve = ("-ex", f"python exec({SERVE!r}, globals())", "-ex", f"python _serve({number})")
        process = subprocess.Popen(
            [*alone, *serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[number],
            start_new_session=True,
        )
        theirs.close()
        _ROOTS[command] = _Parent(control, process)
        _ROOTS[command].expect_ready(" ".join(command))
    return _ROOTS[command]


class _Parent:
    """A GDB that has loaded something, and forks."""

    def __init__(self, control: socket.socket, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self._control = control
        self._process = process
        self._children: list[_Child] = []

    def expect_ready(self, what: str) -> None:
        """Wait until it has loaded everything."""
        answer = _expect(self._control, START_SECONDS, f"{what} to have loaded")
        assert answer == b"ready", answer.decode()

    @property
    def is_busy(self) -> bool:
        """Whether a child still runs."""
        self._children = [child for child in self._children if child.poll() is None]
        return bool(self._children)

    def branch(self, loading: tuple[str, ...]) -> "_Parent":
        """Another one that has also done what `loading` says."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._fork(["branch", *loading], [theirs.fileno()])
        theirs.close()
        parent = _Parent(control)
        parent.expect_ready("; ".join(loading))
        return parent

    def fork(self) -> GdbProcess:
        """The next child, with its pipes."""
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        theirs = [stdin[0], stdout[1], stderr[1]]
        pid = self._fork(["fork"], theirs)
        for pipe in theirs:
            os.close(pipe)
        streams = os.fdopen(stdin[1], "wb"), os.fdopen(stdout[0], "rb"), os.fdopen(stderr[0], "rb")
        child = _Child(pid, self._control, streams)
        self._children.append(child)
        return child

    def _fork(self, message: list[str], files: list[int]) -> int:
        socket.send_fds(self._control, [json.dumps(message).encode()], files)
        return int(_expect(self._control, FORK_SECONDS, "a forked GDB"))

    def close(self) -> None:
        """End the GDB that forks: it ends when nobody is left to talk to."""
        self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()


class _Child:
    """A forked GDB. Its parent, whose child it is, tells with what status it ended."""

    def __init__(self, pid: int, control: socket.socket, streams: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self._control = control
        self._alive = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        status = self._ended(timeout)
        if status is None:
            raise TimeoutError(f"a forked GDB still runs after {timeout} seconds")
        return status

    def kill(self) -> None:
        """End it at once."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def _ended(self, seconds: float | None) -> int | None:
        if self._status is None and select.select([self._alive], [], [], seconds)[0]:
            os.close(self._alive)
            self._control.send(json.dumps(["wait", self.pid]).encode())
            self._status = int(_expect(self._control, FORK_SECONDS, "the status of a forked GDB"))
        return self._status


_PARENTS: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], _Parent] = OrderedDict()
_ROOTS: dict[tuple[str, ...], _Parent] = {}


@atexit.register
def _close_parents() -> None:
    for parent in (*_PARENTS.values(), *_ROOTS.values()):
        parent.close()


def _expect(control: socket.socket, seconds: float | None, what: str) -> bytes:
    control.settimeout(seconds)
    try:
        data = control.recv(1 << 12)
    except TimeoutError:
        raise TimeoutError(f"no sign of {what} after {seconds} seconds") from None
    assert data, f"no sign of {what}: GDB has ended"
    return data
