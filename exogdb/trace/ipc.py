"""Who talks to whom: successful sends into channels, and successful receives out of them.

A call counts as IPC by its name (`ipc_send`, `ipc_recv`), with the channel as its first argument. Messages are not
matched one to one: a trace may begin with messages already waiting.
"""

from dataclasses import dataclass

from exogdb.trace.call import Call, CallState

__all__ = ["Message", "find_message"]


@dataclass(frozen=True)
class Message:
    """A message that a call put into `channel`, or took out of it."""

    channel: int
    is_send: bool


def find_message(call: Call, name: str) -> Message | None:
    """The message that a call with that name sent or received; None if it is no such call, or did not succeed.

    >>> done = Call(1, 0, 0x1000, 1, 101, (3, 0, 0, 0, 0, 0), state=CallState.RETURNED, result=5)
    >>> find_message(done, "ipc_send"), find_message(done, "getpid")
    (Message(channel=3, is_send=True), None)
    """
    is_send = "send" in name
    if "ipc" not in name or not (is_send or "recv" in name):
        return None
    if not call.arguments or call.state is not CallState.RETURNED or call.failed:
        return None
    return Message(call.arguments[0], is_send)
