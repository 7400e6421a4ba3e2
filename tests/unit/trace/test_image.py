"""exogdb/trace/image.py: constant data of an ELF file, and nothing that can change."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.errors import FormatError
from exogdb.trace.image import ConstantData, parse_constant_data

_PROGBITS, _NOBITS = 1, 8
_WRITE, _ALLOC = 1, 2


def _elf(*sections: tuple[int, int, int, bytes]) -> bytes:
    """An ELF file with these sections: kind, flags, address, content."""
    contents, headers, offset = b"", b"", 64
    for kind, flags, address, content in sections:
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, flags, address, offset, len(content), 0, 0, 0, 0)
        contents += content
        offset += len(content)
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, 62, 1, 0, 0, offset, 0, 64, 0, 0, 64, len(sections), 0
    )
    return head + contents + headers


_PROGRAM = _elf(
    (_PROGBITS, _ALLOC, 0x1000, b"/bin/echo\0rest"),
    (_PROGBITS, _ALLOC | _WRITE, 0x2000, b"changes\0"),
    (_NOBITS, _ALLOC | _WRITE, 0x3000, b"zeroes"),
    (_PROGBITS, 0, 0, b"debug info\0"),
)


def test_text_in_a_read_only_section() -> None:
    data = parse_constant_data(_PROGRAM)
    assert data.find_text(0x1000, 64) == b"/bin/echo"
    assert data.find_text(0x1005, 64) == b"echo"
    assert data.find(0x1000, 4) == b"/bin"


def test_text_that_does_not_end_in_constant_data_is_not_text() -> None:
    assert parse_constant_data(_PROGRAM).find_text(0x100A, 64) is None


@pytest.mark.parametrize("address", [0xFFF, 0x100E, 0x2000, 0x3000, 0x9000])
def test_what_can_change_or_is_nowhere_is_not_given(address: int) -> None:
    assert parse_constant_data(_PROGRAM).find(address, 4) is None


def test_the_span_is_that_of_everything_loaded() -> None:
    data = parse_constant_data(_PROGRAM)
    assert [data.covers(at) for at in (0xFFF, 0x1000, 0x3005, 0x3006)] == [False, True, True, False]


@given(st.integers(0, len(_PROGRAM) - 1))
def test_a_file_cut_short_is_refused_or_read(length: int) -> None:
    try:
        data = parse_constant_data(_PROGRAM[:length])
    except FormatError:
        return
    assert isinstance(data, ConstantData)


def test_something_else_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"#!/bin/sh\n", _PROGRAM[:64].ljust(64), _elf()):
        with pytest.raises(FormatError):
            parse_constant_data(data)
