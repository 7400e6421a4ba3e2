"""QMP: asking QEMU itself, beside the GDB stub.

A connection is made for one question and closed again, because a monitor serves one client at a time and other
tools want it too. Nothing here stops, resumes or changes the guest.
"""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from exogdb.errors import MonitorError, TargetLostError
from exogdb.interrupts import interrupts_held
from exogdb.target.qemu.address import QmpAddress
from exogdb.target.qemu.conversation import Conversation, QmpError
from exogdb.target.qemu.monitor import find_qmp_addresses, is_client_of_guest

__all__ = ["ask_qmp"]

_DEADLINE_SECONDS = 5.0
# How long QEMU may take to notice that a client is gone; a busy machine schedules it late.
_NOTICE_SECONDS = 1.0
_last_closed = float("-inf")
_T = TypeVar("_T")


def ask_qmp(question: Callable[[Conversation], _T]) -> _T:
    """Connect to the first monitor that greets as QMP, run `question` on it, disconnect.

    Ctrl-C is held back meanwhile, looked for, and strikes when the connection is closed.
    :raise MonitorError: no monitor was found, none of them speaks QMP, or the question was refused.
    """
    failures = []
    for address in _find_free_monitors():
        try:
            return _ask_at(address, question)
        except (OSError, QmpError) as error:
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


def _ask_at(address: QmpAddress, question: Callable[[Conversation], _T]) -> _T:
    global _last_closed
    try:
        with _connect(address) as connection:
            if address.tcp is not None:
                _require_guests_own(connection)
            with interrupts_held():
                return question(Conversation(connection, _DEADLINE_SECONDS))
    finally:
        _last_closed = time.monotonic()


def _connect(address: QmpAddress) -> socket.socket:
    connection = socket.socket(address.family)
    try:
        connection.settimeout(_DEADLINE_SECONDS)
        connection.connect(address.tcp or address.path)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_guests_own(connection: socket.socket) -> None:
    """A port says nothing about who listens there; but the QEMU that is debugged lists its clients with theirs.

    :raise QmpError: it is another program, or another QEMU, or one on another machine behind a forwarded port.
    """
    ours = connection.getsockname()[:2]
    deadline = time.monotonic() + _NOTICE_SECONDS
    while not is_client_of_guest(ours):
        if time.monotonic() >= deadline:
            raise QmpError("the QEMU behind the GDB stub has no such client: it is another one, or far away")
