"""Who talks to whom: successful sends into channels, and successful receives out of them.

A call counts as IPC by its name (`ipc_send`, `ipc_recv`), with the channel as its first argument. Messages are not
matched one to one: a trace may begin with messages already waiting.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exogdb.trace.call import Call, CallState

__all__ = ["Conversation", "find_conversations"]


@dataclass(frozen=True, order=True)
class Conversation:
    """`messages` that `process` sent into `channel`, or received from it."""

    channel: int
    is_send: bool
    process: int
    messages: int


def find_conversations(calls: Iterable[Call], name_of: Callable[[Call], str]) -> list[Conversation]:
    """Every pair of process and channel that exchanged a message, by channel."""
    counts: dict[tuple[int, bool, int], int] = {}
    for call in calls:
        name = name_of(call)
        is_send = "send" in name
        if not call.arguments or call.state is not CallState.RETURNED or call.failed:
            continue
        if "ipc" in name and (is_send or "recv" in name):
            key = (call.arguments[0], is_send, call.process)
            counts[key] = counts.get(key, 0) + 1
    return sorted(Conversation(*key, messages) for key, messages in counts.items())
