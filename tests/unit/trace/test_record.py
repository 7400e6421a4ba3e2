"""exogdb/trace/record.py: what is written is what is read, and what is broken is said to be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.errors import FormatError
from exogdb.trace.call import Call, CallState
from exogdb.trace.record import Header, Shown, call_from_json, call_to_json, read_record

_HEADER = Header(engine="execution log", clock="host", kernel="exo-os.elf", cpus=2)
_U64 = st.integers(0, (1 << 64) - 1)
_MAYBE = st.none() | _U64
_CALLS = st.builds(
    Call,
    sequence=st.integers(0, 1 << 40),
    cpu=st.none() | st.integers(0, 255),
    space=_U64,
    process=st.integers(1, 1000),
    number=_MAYBE,
    arguments=st.none() | st.tuples(_U64, _U64, _U64, _U64, _U64, _U64),
    user_rip=_MAYBE,
    user_rsp=_MAYBE,
    entry_ns=st.none() | st.integers(0, 1 << 62),
    state=st.sampled_from(CallState),
    result=_MAYBE,
    exit_ns=st.none() | st.integers(0, 1 << 62),
    return_cpu=st.none() | st.integers(0, 255),
    return_space=_MAYBE,
    kernel_stack=_MAYBE,
    is_ambiguous=st.booleans(),
)


@given(_CALLS)
def test_a_call_survives_the_file(call: Call) -> None:
    line = json.dumps(call_to_json(call, Shown("ipc_send", ("channel=3",), "0", "ping")))
    assert call_from_json(json.loads(line)) == call


def _lines(*calls: Call) -> list[str]:
    body = [json.dumps(call_to_json(call, Shown("getpid", (), "7"))) for call in calls]
    return [json.dumps(_HEADER.to_json()), *body, json.dumps({"end": {"calls": len(calls), "lost": 0}})]


def test_a_whole_file() -> None:
    call = Call(1, 0, 0x1000, 1, 4, (1, 2, 3, 4, 5, 6))
    record = read_record(_lines(call, call))
    assert record.header == _HEADER
    assert record.calls == [call, call]
    assert record.shown == [Shown("getpid", (), "7")] * 2
    assert record.is_complete


def test_a_file_that_was_cut_off_keeps_what_was_written() -> None:
    lines = _lines(Call(1, 0, 0x1000, 1, 4), Call(2, 0, 0x1000, 1, 4))
    record = read_record([*lines[:2], lines[2][:40]])
    assert len(record.calls) == 1
    assert not record.is_complete


def test_a_broken_line_in_the_middle_is_an_error() -> None:
    lines = _lines(Call(1, 0, 0x1000, 1, 4))
    with pytest.raises(FormatError, match="line 2 of the trace cannot be read"):
        read_record([lines[0], "{", *lines[1:]])


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("", "its first line is no header"),
        ("[]", "its first line is no header"),
        ("[" * 100_000, "its first line is no header"),
        ('{"format": "perfetto"}', "names another format"),
        ('{"format": "exogdb-trace", "version": 99}', "has version 99"),
    ],
)
def test_what_is_no_trace_is_refused(first: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_record([first])


@pytest.mark.parametrize(
    "change", [{"cpus": float("inf")}, {"cpus": "2"}, {"version": True}, {"engine": None}, {"doubts": "none"}]
)
def test_a_header_with_something_else_in_a_field_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="its first line is no header"):
        read_record([json.dumps(_HEADER.to_json() | change)])


@pytest.mark.parametrize(
    "change",
    [
        *({"seq": value} for value in ("1", 1.0, float("inf"), None)),
        *({"entry_ns": value} for value in ("5", float("nan"), 1e400)),
        *({"cpu": []}, {"nr": [1]}, {"nr": {}}, {"nr": True}, {"process": False}, {"space": 4096}),
        *({"name": 4}, {"shown": [1]}, {"shown": "x"}, {"program": None}, {"parent": "1"}, {"state": []}),
    ],
)
def test_a_call_with_something_else_in_a_field_is_a_broken_line(change: dict[str, Any]) -> None:
    first, call, end = _lines(Call(1, 0, 0x1000, 1, 4))
    with pytest.raises(FormatError, match="line 2 of the trace cannot be read"):
        read_record([first, json.dumps(json.loads(call) | change), end])


@pytest.mark.parametrize("end", ['{"end": [1]}', '{"end": {"calls": NaN}}', "[" * 100_000, '"the end"'])
def test_an_end_that_is_none_leaves_the_record_incomplete(end: str) -> None:
    first, call, _ = _lines(Call(1, 0, 0x1000, 1, 4))
    record = read_record([first, call, end])
    assert (len(record.calls), record.is_complete) == (1, False)
