"""QMP: asking QEMU itself, beside the GDB stub.

A connection is made for one question and closed again, because a monitor serves one client at a time and other
tools want it too. Nothing here stops, resumes or changes the guest.
"""

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from exogdb.errors import MonitorError, UnavailableError
from exogdb.target.interrupts import interrupts_held
from exogdb.target.qemu.monitor import find_qmp_sockets

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from qemu.qmp import QMPClient

__all__ = ["ask_qmp", "read_device_state"]

_DEADLINE_SECONDS = 5.0
# How long QEMU may take to notice that a client is gone; a busy machine schedules it late.
_NOTICE_SECONDS = 1.0
_last_closed = float("-inf")
_CANCEL_SECONDS = 0.5
# QEMU's words in `query-migrate` (migration/savevm.c, qemu_savevm_non_migratable_list).
_NOT_MIGRATABLE = "non-migratable device:"
_LOOK_SECONDS = 0.05
_T = TypeVar("_T")


def ask_qmp(question: Callable[["QMPClient"], Awaitable[_T]]) -> _T:
    """Connect to the first socket that greets as QMP, run `question` on it, disconnect.

    :raise MonitorError: no socket was found, none of them is a free QMP monitor, or the question was refused.
    """
    paths = _find_free_sockets()
    if not paths:
        raise MonitorError("QEMU has no free QMP socket: start it with `-qmp unix:PATH,server=on,wait=off`")
    failures = []
    for path in paths:
        try:
            return _ask_at(path, question)
        except TimeoutError:
            failures.append(f"{path}: no answer within {_DEADLINE_SECONDS:.0f} seconds")
        except (OSError, _QmpFailure) as error:
            failures.append(f"{path}: {error}")
    raise MonitorError("no QMP monitor answered: " + "; ".join(failures))


def read_device_state() -> bytes:
    """The state of all devices and vCPUs as QEMU's migration stream, without RAM (about 210 KB).

    Uses `xen-save-devices-state` with `live: false`, which neither resumes the guest nor inactivates its block
    devices, and hands QEMU a memfd, so that no file appears anywhere. QEMU keeps that one descriptor.

    :raise MonitorError: as `ask_qmp`.
    :raise UnavailableError: the machine has a device whose state QEMU cannot save.
    """
    return ask_qmp(_save_devices_state)


def _find_free_sockets() -> list[str]:
    """As `find_qmp_sockets`, past the moment in which QEMU has not noticed that our last connection is closed."""
    paths = find_qmp_sockets()
    while not paths and time.monotonic() - _last_closed < _NOTICE_SECONDS:
        # Each question lets QEMU's main loop run once.
        paths = find_qmp_sockets()
    return paths


class _QmpFailure(Exception):
    """The peer is not QMP, or refused a command."""


def _ask_at(path: str, question: Callable[["QMPClient"], Awaitable[_T]]) -> _T:
    global _last_closed
    try:
        with _connect(path) as connection:
            return _run(functools.partial(_ask, connection, question))
    finally:
        _last_closed = time.monotonic()


def _connect(path: str) -> socket.socket:
    """A connection of our own: closing it ends it for QEMU too, in whatever state Ctrl-C has left the client."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_DEADLINE_SECONDS)
        connection.connect(path)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def _run(answer: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Drive a private event loop: asyncio.run() would take SIGINT over, which belongs to GDB.

    A KeyboardInterrupt in the middle of asyncio would leave coroutines and tasks in any state; so Ctrl-C is held
    back meanwhile, looked for, and strikes when everything is closed.
    """
    import asyncio

    with interrupts_held():
        loop = asyncio.new_event_loop()
        # It would print, when garbage is collected, the traceback of every task that ended with the connection.
        loop.set_exception_handler(lambda _loop, _context: None)
        try:
            task = loop.create_task(asyncio.wait_for(answer(), _DEADLINE_SECONDS))
            _cancel_at_interrupt(loop, task)
            return loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error
        finally:
            _cancel_tasks(loop)
            loop.close()


def _cancel_at_interrupt(loop: "AbstractEventLoop", task: "Task[Any]") -> None:
    if signal.SIGINT in signal.sigpending():
        task.cancel()
    else:
        loop.call_later(_LOOK_SECONDS, _cancel_at_interrupt, loop, task)


def _cancel_tasks(loop: "AbstractEventLoop") -> None:
    """End what the client has left running, so that nothing complains later."""
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCEL_SECONDS))


async def _ask(connection: socket.socket, question: Callable[["QMPClient"], Awaitable[_T]]) -> _T:
    from qemu.qmp import QMPClient, QMPError

    client = QMPClient("exogdb")
    try:
        await client.connect(connection)
        return await question(client)
    except QMPError as error:
        raise _QmpFailure(str(error)) from error
    except EOFError as error:
        raise _QmpFailure("it closed the connection") from error
    finally:
        # What ended the connection is raised again here: EOFError if QEMU went away.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()


class _StateFile:
    """An anonymous file for device states, and what QEMU calls the descriptor of it that it was given.

    It is kept and given to QEMU once: QEMU closes a descriptor that is taken back only while the guest runs
    (`monitor_fdset_cleanup`), so that one given with every question would use them up while the guest is stopped.
    """

    def __init__(self) -> None:
        self._read_fd = os.memfd_create("exogdb-device-state", os.MFD_CLOEXEC)
        # QEMU takes a descriptor out of a set only if its access mode is the one it wants, which is write-only.
        self._write_fd = os.open(f"/proc/self/fd/{self._read_fd}", os.O_WRONLY | os.O_CLOEXEC)
        self._label = f"exogdb device state, process {os.getpid()}"

    async def give(self, client: "QMPClient") -> str:
        """The name of the file for QEMU, empty and written from its start. Given anew if QEMU does not have it."""
        os.ftruncate(self._write_fd, 0)
        os.lseek(self._write_fd, 0, os.SEEK_SET)  # QEMU's descriptor shares this position
        fdset = await self._find(client)
        if fdset is None:
            client.send_fd_scm(self._write_fd)
            answer = await client.execute("add-fd", {"opaque": self._label})
            assert isinstance(answer, dict)
            fdset = answer["fdset-id"]
        return f"/dev/fdset/{fdset}"

    async def _find(self, client: "QMPClient") -> int | None:
        fdsets: Any = await client.execute("query-fdsets")
        for fdset in fdsets:
            if any(fd.get("opaque") == self._label for fd in fdset["fds"]):
                return int(fdset["fdset-id"])
        return None

    def read(self) -> bytes:
        """All that was written since it was given."""
        return os.pread(self._read_fd, os.fstat(self._read_fd).st_size, 0)


@functools.cache
def _state_file() -> _StateFile:
    return _StateFile()


async def _require_migratable(client: "QMPClient") -> None:
    """QEMU saves the state of every device, and crashes over one that has none to save (an NVMe drive, say).

    :raise UnavailableError: there is such a device.
    """
    migration: Any = await client.execute("query-migrate")
    for reason in migration.get("blocked-reasons", ()):
        if reason.startswith(_NOT_MIGRATABLE):
            device = reason.removeprefix(_NOT_MIGRATABLE).strip()
            raise UnavailableError(f"QEMU cannot save the state of the device {device}, and would crash")


async def _save_devices_state(client: "QMPClient") -> bytes:
    await _require_migratable(client)
    file = _state_file()
    arguments = {"filename": await file.give(client), "live": False}
    await client.execute("xen-save-devices-state", arguments)
    return file.read()
