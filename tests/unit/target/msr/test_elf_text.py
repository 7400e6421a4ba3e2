"""Byte patterns in the code of an ELF image."""

import struct
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exogdb.target.msr.elf_text import find_in_text


def make_elf(code: bytes, data: bytes) -> bytes:
    """An ELF64 with one executable segment at 0x400000 and one that is not at 0x500000."""
    headers = 64 + 2 * 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    text = struct.pack("<IIQQQQQQ", 1, 5, headers, 0x400000, 0, len(code), len(code), 16)
    rest = struct.pack("<IIQQQQQQ", 1, 6, headers + len(code), 0x500000, 0, len(data), len(data), 16)
    return header + text + rest + code + data


def test_only_executable_segments_count() -> None:
    elf = make_elf(b"\x90\x0f\x32\xc3\x0f\x32", b"\x0f\x32")
    assert list(find_in_text(elf, b"\x0f\x32")) == [0x400001, 0x400004]


def test_other_files_have_none() -> None:
    assert list(find_in_text(b"", b"\x0f")) == []
    assert list(find_in_text(b"\x7fELF\x01\x01" + bytes(100), b"\0")) == []


def test_a_real_program_has_code() -> None:
    assert next(iter(find_in_text(Path(sys.executable).read_bytes(), b"\xc3")), None) is not None


@given(st.integers(0, 200))
def test_a_cut_image_is_no_error(size: int) -> None:
    list(find_in_text(make_elf(b"\x0f\x32" * 8, b"")[:size], b"\x0f\x32"))
