"""QMP: asking QEMU itself, beside the GDB stub.

A connection is made for one question and closed again, because a monitor serves one client at a time and other
tools want it too. Nothing here stops, resumes or changes the guest.
"""

import contextlib
import functools
import gc
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from exogdb.errors import MonitorError, TargetLostError
from exogdb.interrupts import interrupts_held, is_interrupt_pending
from exogdb.target.qemu.address import QmpAddress
from exogdb.target.qemu.monitor import find_qmp_addresses, is_client_of_guest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from qemu.qmp import QMPClient
    from qemu.qmp.message import Message

__all__ = ["QmpMonitor", "ask_qmp"]

_DEADLINE_SECONDS = 5.0
# How long QEMU may take to notice that a client is gone; a busy machine schedules it late.
_NOTICE_SECONDS = 1.0
_last_closed = float("-inf")
_CANCEL_SECONDS = 0.5
_LOOK_SECONDS = 0.05
_T = TypeVar("_T")


@dataclass(frozen=True)
class QmpMonitor:
    """A monitor that is asked. `takes_descriptors`: it is a unix socket, over which QEMU can be handed some."""

    client: "QMPClient"
    takes_descriptors: bool

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU answers to `command`.

        :raise qemu.qmp.QMPError: it refused, or the connection ended.
        """
        return await self.client.execute(command, arguments)


def ask_qmp(question: Callable[[QmpMonitor], Awaitable[_T]]) -> _T:
    """Connect to the first monitor that greets as QMP, run `question` on it, disconnect.

    :raise MonitorError: no monitor was found, none of them speaks QMP, or the question was refused.
    """
    failures = []
    for address in _find_free_monitors():
        try:
            return _ask_at(address, question)
        except TimeoutError:
            failures.append(f"{address}: no answer within {_DEADLINE_SECONDS:.0f} seconds")
        except (OSError, _QmpFailure) as error:
            failures.append(f"{address}: {error}")
    raise MonitorError("no QMP monitor answered: " + "; ".join(failures))


def _find_free_monitors() -> list[QmpAddress]:
    """As `find_qmp_addresses`, past the moment in which QEMU has not noticed that our last connection is gone."""
    while True:
        try:
            return find_qmp_addresses()
        except TargetLostError:
            raise
        except MonitorError:
            # Each question lets QEMU's main loop run once.
            if time.monotonic() - _last_closed >= _NOTICE_SECONDS:
                raise


class _QmpFailure(Exception):
    """The peer is not QMP, or refused a command."""


def _ask_at(address: QmpAddress, question: Callable[[QmpMonitor], Awaitable[_T]]) -> _T:
    global _last_closed
    try:
        with _connect(address) as connection:
            if address.tcp is not None:
                _require_guests_own(connection)
            return _run(functools.partial(_ask, connection, question))
    finally:
        _last_closed = time.monotonic()


def _connect(address: QmpAddress) -> socket.socket:
    """A connection of our own: closing it ends it for QEMU too, in whatever state Ctrl-C has left the client."""
    family = (
        socket.AF_UNIX if address.tcp is None else socket.AF_INET6 if ":" in address.tcp[0] else socket.AF_INET
    )
    connection = socket.socket(family)
    try:
        connection.settimeout(_DEADLINE_SECONDS)
        connection.connect(address.tcp or address.path)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_guests_own(connection: socket.socket) -> None:
    """A port says nothing about who listens there; but the QEMU that is debugged lists its clients with theirs.

    :raise _QmpFailure: it is another program, or another QEMU, or one on another machine behind a forwarded port.
    """
    ours = connection.getsockname()[:2]
    deadline = time.monotonic() + _NOTICE_SECONDS
    while not is_client_of_guest(ours):
        if time.monotonic() >= deadline:
            raise _QmpFailure("the QEMU behind the GDB stub has no such client: it is another one, or far away")


def _run(answer: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Drive a private event loop: asyncio.run() would take SIGINT over, which belongs to GDB.

    A KeyboardInterrupt in the middle of asyncio would leave coroutines and tasks in any state; so Ctrl-C is held
    back meanwhile, looked for, and strikes when everything is closed.
    """
    with interrupts_held(), _garbage_collected():
        return _drive(answer)


@contextlib.contextmanager
def _garbage_collected() -> Iterator[None]:
    """What asyncio leaves in cycles is gone at the end of the block, and only that is looked at.

    Collected later, it gives Ctrl-C the chance to strike inside a finaliser, which Python reports to the user.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if was_enabled:
            gc.enable()


def _drive(answer: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    import asyncio

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
    if is_interrupt_pending():
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


async def _ask(connection: socket.socket, question: Callable[[QmpMonitor], Awaitable[_T]]) -> _T:
    import asyncio

    from qemu.qmp import ConnectError, QMPError
    from qemu.qmp.qmp_client import GreetingError

    client = _client_type()("exogdb")
    client.negotiate = False
    monitor = QmpMonitor(client, takes_descriptors=connection.family == socket.AF_UNIX)
    try:
        await client.connect(connection)
        # QEMU takes commands in their order: the first question need not wait for the answer to this one.
        _, answer = await asyncio.gather(client.execute("qmp_capabilities"), question(monitor))
        return answer
    except QMPError as error:
        if isinstance(error, ConnectError) and isinstance(error.exc, GreetingError):
            raise _QmpFailure("it does not greet as QMP; is it QEMU's human monitor?") from error
        raise _QmpFailure(str(error)) from error
    except EOFError as error:
        raise _QmpFailure("it closed the connection") from error
    finally:
        # What ended the connection is raised again here: EOFError if QEMU went away.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()


@functools.cache
def _client_type() -> type["QMPClient"]:
    """qemu.qmp's client without the text of every message, which it makes for a log that nobody reads."""
    from qemu.qmp import QMPClient

    class QuietClient(QMPClient):
        def _cb_outbound(self, msg: "Message") -> "Message":
            return msg

        def _cb_inbound(self, msg: "Message") -> "Message":
            return msg

    return QuietClient
