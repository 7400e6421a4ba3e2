"""exogdb/abi/signature.py: a handler's parameters on the arguments, and the text behind pointers."""

import pytest

from exogdb.abi.signature import Parameter, decode_arguments, decode_text
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


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02\x03\x04\x05"])
def test_what_is_no_text_is_not_shown_as_text(content: bytes) -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(5, ""))
    assert decode_arguments(values, WRITE, StubMemory(0x1000, content))[1].text == ""


def test_long_text_is_cut_and_says_so() -> None:
    values = rows(Reading(1, ""), Reading(0x1000, ""), Reading(200, ""))
    text = decode_arguments(values, WRITE, StubMemory(0x1000, b"a" * 200))[1].text
    assert text == '"' + "a" * 64 + '"...'


def test_an_unavailable_pointer_is_not_followed() -> None:
    values = rows(Reading(1, ""), Unavailable("gone"), Reading(5, ""))
    assert decode_arguments(values, WRITE, StubMemory(0x1000, b"hello"))[1].text == ""


def test_escapes_are_cs() -> None:
    assert decode_text(b"a\t\\\x7f") == '"a\\t\\\\\\x7f"'
