"""A conversation with a QMP monitor over a socket: its greeting, then commands and their answers. Pure.

::

    monitor   {"QMP": {"version": {...}, "capabilities": [...]}}                    greeting
    we        {"execute":"qmp_capabilities"}{"execute":"query-migrate"}
    monitor   {"return": {}}  {"return": {...}}                                     in the order of the commands
              {"error": {"class": "GenericError", "desc": "..."}}                   instead of a return
              {"event": "STOP", ...}                                                at any time

Each is one line. Messages, greeting and errors are qemu.qmp's; its client is not used, because an event loop takes
longer than QEMU needs for its answers (docs/adr/0023). Ctrl-C must be held back by the caller
(`exogdb.interrupts`); it is looked for while waiting.

Source: QEMU docs/interop/qmp-spec.rst.
"""

import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from exogdb.errors import MonitorError
from exogdb.interrupts import is_interrupt_pending

if TYPE_CHECKING:
    from qemu.qmp import Message

__all__ = ["Conversation", "QmpError", "RefusedError"]

_LOOK_SECONDS = 0.05
_PIECE_BYTES = 1 << 16
_MOST_BYTES = 10 << 20  # of one message


class QmpError(MonitorError):
    """The peer does not speak QMP, went away, or says nothing."""


class RefusedError(QmpError):
    """The monitor answered a command with an error; `reason` is its description."""


class Conversation:
    """Commands to the monitor behind `connection`, a connected stream socket that its owner closes.

    `takes_descriptors`: it is a unix socket, over which QEMU can be handed some.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """Wait for the greeting. All that is ever asked must be answered within `seconds`.

        :raise QmpError: the peer does not greet as QMP.
        :raise KeyboardInterrupt: Ctrl-C is pending.
        """
        self.takes_descriptors = connection.family == socket.AF_UNIX
        self._connection = connection
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._received = bytearray()
        connection.settimeout(_LOOK_SECONDS)
        self._require_greeting()
        # QEMU takes commands in their order: the first one need not wait for the answer to this.
        self._send("qmp_capabilities")
        self._unanswered = 1

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, descriptor: int | None = None
    ) -> Any:
        """What the monitor returns for `command`; `descriptor` is handed over with it.

        :raise RefusedError: it answered with an error.
        :raise QmpError: the connection ended, nothing came in time, or it was not QMP.
        :raise KeyboardInterrupt: Ctrl-C is pending.
        """
        self._send(command, arguments, descriptor)
        while self._unanswered > 1:
            self._take_answer()
        return self._take_answer()

    def _send(
        self, command: str, arguments: Mapping[str, object] | None = None, descriptor: int | None = None
    ) -> None:
        from qemu.qmp import Message

        # QEMU reads a command byte by byte, slowly: no id, which the order of the answers makes superfluous.
        data = bytes(Message({"execute": command, **({"arguments": arguments} if arguments else {})}))
        try:
            if descriptor is None:
                self._connection.sendall(data)
            else:
                socket.send_fds(self._connection, [data], [descriptor])
        except OSError as error:
            raise QmpError(f"it does not take commands: {error}") from error
        self._unanswered += 1

    def _take_answer(self) -> Any:
        """What the oldest command without an answer returned. Raises as `execute`."""
        from qemu.qmp.models import ErrorResponse

        message = self._next_message()
        while "event" in message:
            message = self._next_message()
        self._unanswered -= 1
        if "return" in message:
            return message["return"]
        try:
            raise RefusedError(ErrorResponse(message).error.desc)
        except (KeyError, TypeError) as error:
            raise QmpError("it answers with what is no QMP") from error

    def _require_greeting(self) -> None:
        from qemu.qmp.models import Greeting

        self._unanswered = 0
        try:
            Greeting(self._next_message())
        except (_NotJsonError, KeyError, TypeError) as error:
            raise QmpError("it does not greet as QMP; is it QEMU's human monitor?") from error

    def _next_message(self) -> "Message":
        from qemu.qmp import Message
        from qemu.qmp.error import ProtocolError

        while (end := self._received.find(b"\n")) < 0:
            self._receive()
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            return Message(line)
        except (ProtocolError, ValueError, RecursionError) as error:
            raise _NotJsonError("it answers with what is no QMP") from error

    def _receive(self) -> None:
        """Wait for some bytes more."""
        while True:
            try:
                data = self._connection.recv(_PIECE_BYTES)
            except TimeoutError:
                if is_interrupt_pending():
                    raise KeyboardInterrupt from None
                if time.monotonic() >= self._end:
                    raise QmpError(f"no answer within {self._seconds:.0f} seconds") from None
            except OSError as error:
                raise QmpError(f"the connection broke: {error}") from error
            else:
                break
        self._received += data
        if not data:
            raise QmpError("it closed the connection")
        if len(self._received) > _MOST_BYTES:
            raise QmpError("it sends more than any answer has")


class _NotJsonError(QmpError):
    """A line that is no JSON object."""
