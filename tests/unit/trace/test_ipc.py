"""exogdb/trace/ipc.py: which calls moved a message, and through which channel."""

import pytest

from exogdb.trace.call import Call, CallState
from exogdb.trace.ipc import Message, find_message


def _call(channel: int = 7, state: CallState = CallState.RETURNED, result: int | None = 0) -> Call:
    return Call(1, 0, 0x1000, 1, 101, (channel, 0, 0, 0, 0, 0), state=state, result=result)


@pytest.mark.parametrize(
    ("name", "message"),
    [("ipc_send", Message(7, True)), ("ipc_recv", Message(7, False)), ("ipc_create", None), ("sendto", None)],
)
def test_a_message_is_told_by_the_name(name: str, message: Message | None) -> None:
    assert find_message(_call(), name) == message


def test_a_send_that_failed_has_sent_nothing() -> None:
    assert find_message(_call(result=(1 << 64) - 1), "ipc_send") is None


def test_a_receive_that_is_still_waiting_has_received_nothing() -> None:
    assert find_message(_call(state=CallState.IN_PROGRESS, result=None), "ipc_recv") is None
