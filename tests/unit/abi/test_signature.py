"""exogdb/abi/signature.py: a handler's parameters on the arguments, and the text behind pointers."""

import pytest

from exogdb.abi.signature import Parameter, decode_arguments, decode_integer, decode_text
from exogdb.reading import Reading, Unavailable, Value
from tests.unit.abi.stub_fixture import StubMemory

WRITE = (Parameter("descriptor", "i32"), Parameter("buffer", "*const u8"), Parameter("length", "u64"))
OPEN = (Parameter("path", "const char *"), Parameter("flags", "int"))


def rows(*values: Value) -> list[tuple[str, Value, str]]:
    return [(register, value, "frame") for register, value in zip(("rdi", "rsi", "rdx"), values, strict=True)]


def test_a_pointer_with_a_length_behind_it_is_shown_as_text() -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(5, ""))
    arguments = decode_arguments(values, WRITE, StubMemory(0x1000, b"hello world"))
    assert [each.name for each in arguments] == ["descriptor", "buffer", "length"]
    assert [each.text for each in arguments] == ["", '"hello"', ""]


def test_a_string_ends_at_its_nul() -> None:
    values = rows(Reading(0x1000, ""), Reading(0, ""), Reading(0, ""))
    arguments = decode_arguments(values, OPEN, StubMemory(0x1000, b"/etc/motd\0junk"))
    assert arguments[0].text == '"/etc/motd"'
    assert arguments[2].name == ""


def test_a_buffer_with_a_length_is_shown_whatever_its_bytes_are() -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(3, ""))
    assert decode_arguments(values, WRITE, StubMemory(0x1000, b"\t\0\xff!"))[1].text == '"\\t\\x00\\xff"'


def test_bytes_that_cannot_be_read_are_not_shown() -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(5, ""))
    assert decode_arguments(values, WRITE, StubMemory(0x1000, b""))[1].text == ""


def test_without_a_length_only_text_is_shown() -> None:
    values = rows(Reading(0x1000, ""), Reading(0, ""), Reading(0, ""))
    assert decode_arguments(values, OPEN, StubMemory(0x1000, b"\x01\x02\0"))[0].text == ""


@pytest.mark.parametrize(
    ("value", "type_name", "expected"),
    [
        ((1 << 64) - 1, "i32", -1),
        (0xFFFFFFFF, "int", -1),
        (0x2000, "u64", 0x2000),
        (0x2000, "unsigned long", 0x2000),
        (12, "usize", 12),
        (0x13004000, "*const u8", None),
        (0x13004000, "struct stat *", None),
        (3, "", None),
    ],
)
def test_integers_are_decoded_by_their_type(value: int, type_name: str, expected: int | None) -> None:
    assert decode_integer(value, type_name) == expected


def test_long_text_is_cut_and_says_so() -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(200, ""))
    text = decode_arguments(values, WRITE, StubMemory(0x1000, b"a" * 200))[1].text
    assert text == '"' + "a" * 64 + '"...'


def test_an_unavailable_pointer_is_not_followed() -> None:
    values = rows(Reading(1, ""), Unavailable("gone"), Reading(5, ""))
    assert decode_arguments(values, WRITE, StubMemory(0x1000, b"hello"))[1].text == ""


def test_escapes_are_cs() -> None:
    assert decode_text(b"a\t\\\x7f") == '"a\\t\\\\\\x7f"'
