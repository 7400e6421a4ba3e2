"""exogdb/trace/chaining.py: which direct jumps QEMU may follow without writing the log."""

import pytest

from exogdb.trace.chaining import is_any_chained
from tests.unit.abi.stub_fixture import StubMemory

_BASE = 0xFFFF_FFFF_8000_1000
_POINT = _BASE + 0x80


def _is_chained(code: dict[int, str], *, mapped: int = 8192) -> bool:
    content = bytearray(b"\xcc" * mapped)
    for address, text in code.items():
        instruction = bytes.fromhex(text)
        content[address - _BASE : address - _BASE + len(instruction)] = instruction
    return is_any_chained([_POINT], StubMemory(_BASE, bytes(content)))


@pytest.mark.parametrize(
    "code",
    [
        {_POINT - 5: "e8 00000000"},  # call
        {_BASE: "e9 7b000000"},  # jmp, forwards
        {_POINT + 16: "e9 ebffffff"},  # jmp, backwards
        {_BASE: "0f84 7a000000"},  # je
        {_POINT - 2: "eb 00"},  # short jmp
        {_POINT - 4: "75 02"},  # short jne
        {_POINT + 4: "e2 fa"},  # loop
        {_BASE + 0xFFE: "e9 7df0ffff"},  # begins in the page and ends in the next one
    ],
)
def test_a_direct_jump_within_the_page(code: dict[int, str]) -> None:
    assert _is_chained(code)


@pytest.mark.parametrize(
    "code",
    [
        {},
        {_BASE: "c3"},  # ret
        {_BASE: "ff d0"},  # call rax
        {_BASE: "e8 00000000"},  # a call to somewhere else
        {_BASE: "eb 7b"},  # a short jmp to somewhere else
    ],
)
def test_what_leads_elsewhere_or_through_a_register(code: dict[int, str]) -> None:
    assert not _is_chained(code)


def test_code_that_cannot_be_read_may_hold_anything() -> None:
    assert _is_chained({}, mapped=0)
    assert not _is_chained({}, mapped=4096)
