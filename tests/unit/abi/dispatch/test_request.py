"""A request survives the way through GDB's `save breakpoints` and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.abi.dispatch.request import Request, decode_location, encode_location
from exogdb.errors import FormatError

texts = st.text(st.characters(codec="ascii"), min_size=1, max_size=30)
numbers = st.none() | st.integers(0, 1 << 20)


@given(st.builds(Request, texts, texts | st.just(""), numbers, numbers, st.booleans()))
def test_every_request_comes_back(request_made: Request) -> None:
    location = encode_location(request_made)
    assert decode_location(location) == request_made
    assert len(location.split()) == 2, "GDB ends a probe's name at a blank"
    assert location.count(":") == 1


def test_a_plain_choice_stays_readable() -> None:
    assert encode_location(Request("%ipc,!ipc_recv")) == "-probe syscall:%ipc,!ipc_recv"


@pytest.mark.parametrize("location", ["-probe libc:setjmp", "*0x1234", "syscall:101", "-function syscall:101"])
def test_other_locations_are_none_of_ours(location: str) -> None:
    assert decode_location(location) is None


@pytest.mark.parametrize("location", ["-probe syscall:1?size=3", "-probe syscall:1?cpu=x"])
def test_options_that_nobody_wrote_are_refused(location: str) -> None:
    with pytest.raises(FormatError, match="syscall:1"):
        decode_location(location)
