"""exogdb/view/call.py: arguments and results in words."""

import pytest

from exogdb.abi.numbers import parse_numbers
from exogdb.trace.call import Call, CallState
from exogdb.trace.signature import CType, Signature, to_signature
from exogdb.view.call import CallWords

_NUMBERS = parse_numbers("const SYS_OPEN: u64 = 300;\nconst SYS_WRITE: u64 = 303;\nconst SYS_GETPID: u64 = 4;")
_BYTES = CType(64, is_pointer=True, points_to_bytes=True)
_FILLED = CType(64, is_pointer=True, points_to_bytes=True, is_writable=True)
_INT = CType(32, is_signed=True)
_SIGNATURES: dict[int, Signature] = {
    300: to_signature(
        [("path", _BYTES), ("flags", _INT), ("mode", CType(32))], {"O_RDONLY": 0, "O_CREAT": 0x40}, "open"
    ),
    303: to_signature([("descriptor", _INT), ("buffer", _FILLED), ("length", CType(64))], {}),
    4: Signature(()),
}


def _call(number: int, *arguments: int, result: int | None = None) -> Call:
    six = (*arguments, *[0] * (6 - len(arguments)))
    state = CallState.IN_PROGRESS if result is None else CallState.RETURNED
    return Call(1, 0, 0x1000, 1, number, six, 0x400000, 0x7000, state=state, result=result)


def test_arguments_by_name_and_type() -> None:
    words = CallWords(_NUMBERS, _SIGNATURES, read_text=lambda call, index: b"/etc/motd" if index == 0 else None)
    call = _call(300, 0x401000, 0x41, 0x1_0000_01FF)
    assert words.arguments(call) == ['path=0x401000 "/etc/motd"', "flags=O_CREAT|0x1", "mode=0777"]


def test_only_the_bits_of_the_type_count() -> None:
    words = CallWords(_NUMBERS, _SIGNATURES)
    assert words.arguments(_call(303, 0xFFFF_FFFF, 0x7000, 5)) == ["descriptor=-1", "buffer=0x7000", "length=5"]


def test_a_buffer_that_was_filled_is_an_output() -> None:
    words = CallWords(_NUMBERS, _SIGNATURES, read_text=lambda call, index: b"hi\n" if index == 1 else None)
    assert words.outputs(_call(303, 1, 0x7000, 5)) == ['buffer="hi\\n"']


def test_without_debug_info_all_six_registers_are_shown() -> None:
    words = CallWords(_NUMBERS)
    assert words.arguments(_call(4, 1, 2)) == [
        "arg1=0x1",
        "arg2=0x2",
        "arg3=0x0",
        "arg4=0x0",
        "arg5=0x0",
        "arg6=0x0",
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (5, "5"),
        (0x2000_0000_0000, "0x200000000000"),
        ((1 << 64) - 2, "-2 NoEntry"),
        ((1 << 64) - 1, "-1"),
        (None, "? (not in the log)"),
    ],
)
def test_results(result: int | None, text: str) -> None:
    words = CallWords(_NUMBERS, errors={2: "NoEntry"})
    assert words.result(_call(4, result=result)) == text


def test_names_of_calls_and_programs() -> None:
    words = CallWords(_NUMBERS, find_program=lambda address: "ping" if address == 0x400000 else "")
    assert [words.name(number) for number in (4, 999, None)] == ["getpid", "999", "?"]
    assert words.program(_call(4)) == "ping"


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([b"echo", 0x1000, b"a\n"], ' ["echo", 0x1000, "a\\n"]'),
        ([b"x"] * 17, ' ["x"' + ', "x"' * 15 + ", ...]"),
        (None, ""),
    ],
)
def test_an_array_of_texts_is_written_as_strace_does(known: list[bytes | int] | None, expected: str) -> None:
    signatures = {300: to_signature([("argv", CType(64, is_pointer=True, points_to_texts=True))], {})}
    words = CallWords(_NUMBERS, signatures, read_texts=lambda call, index: known)
    assert words.arguments(_call(300, 0x7000)) == [f"argv=0x7000{expected}"]
