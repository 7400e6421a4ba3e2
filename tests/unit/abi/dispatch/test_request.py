"""A request survives the way through GDB's `save breakpoints` and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.abi.dispatch.request import Request, decode_location, encode_location, squeeze_expression
from exogdb.errors import FormatError

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
numbers = st.none() | st.integers(0, 1 << 20)


@given(st.builds(Request, texts, texts | st.just(""), numbers, numbers, st.booleans()))
def test_every_request_comes_back(request_made: Request) -> None:
    location = encode_location(request_made)
    assert decode_location(location) == request_made
    assert len(location.split()) == 2, "GDB ends a probe's name at a blank"
    assert location.count(":") == 1


def test_a_plain_choice_stays_readable() -> None:
    assert encode_location(Request("%ipc,!ipc_recv")) == "-probe syscall:%ipc,!ipc_recv"


def test_a_condition_stays_readable() -> None:
    made = Request("read", squeeze_expression("$ret < 0 && ($arg1 & 3) == 1"), process=2, on_return=True)
    location = "-probe syscall:read?on-return&process=2&if=$ret<0&&($arg1&3)==1"
    assert encode_location(made) == location
    assert decode_location(location) == made


def test_what_older_versions_saved_is_read() -> None:
    found = decode_location("-probe syscall:read?cpu=1&if=$arg1~20~3d~3d~203~20~26~26~20$nr")
    assert found == Request("read", "$arg1 == 3 && $nr", cpu=1)


@pytest.mark.parametrize(
    "text", ["a - -b", "a + +b", "x / *p", "y & &z", "sizeof (x)", "f as u8", '$_streq(s, "a > b")']
)
def test_blanks_that_mean_something_stay(text: str) -> None:
    squeezed = squeeze_expression(text)
    assert squeezed.replace(" ", "") == text.replace(" ", "")
    assert " " in squeezed


@pytest.mark.parametrize("location", ["-probe libc:setjmp", "*0x1234", "syscall:101", "-function syscall:101"])
def test_other_locations_are_none_of_ours(location: str) -> None:
    assert decode_location(location) is None


@pytest.mark.parametrize("location", ["-probe syscall:1?size=3", "-probe syscall:1?cpu=x"])
def test_options_that_nobody_wrote_are_refused(location: str) -> None:
    with pytest.raises(FormatError, match="syscall:1"):
        decode_location(location)
