"""exogdb/trace/ipc.py: who sent into and received from which channel."""

from exogdb.trace.call import Call, CallState
from exogdb.trace.ipc import Conversation, find_conversations

_NAMES = {101: "ipc_send", 102: "ipc_recv", 303: "write"}


def _call(process: int, number: int, channel: int, result: int = 0) -> Call:
    arguments = (channel, 0, 0, 0, 0, 0)
    return Call(1, 0, 0x1000, process, number, arguments, state=CallState.RETURNED, result=result)


def test_messages_are_counted_by_process_and_channel() -> None:
    failed = _call(1, 101, 7, result=(1 << 64) - 1)
    calls = [_call(1, 101, 7), _call(1, 101, 7), _call(2, 102, 7), _call(2, 303, 1), failed]
    found = find_conversations(calls, lambda call: _NAMES[call.number or 0])
    assert found == [Conversation(7, False, 2, 1), Conversation(7, True, 1, 2)]


def test_a_receive_that_is_still_waiting_has_received_nothing() -> None:
    waiting = Call(1, 0, 0x1000, 1, 102, (7, 0, 0, 0, 0, 0))
    assert find_conversations([waiting], lambda _: "ipc_recv") == []
