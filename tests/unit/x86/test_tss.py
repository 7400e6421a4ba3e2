"""The 64-bit TSS."""

import struct

import pytest

from exogdb.errors import FormatError
from exogdb.x86.tss import decode_tss


def test_layout() -> None:
    raw = struct.pack("<I3QQ7QQHH", 0, 1, 2, 3, 0, 11, 12, 13, 14, 15, 16, 17, 0, 0, 104)
    assert len(raw) == 104
    tss = decode_tss(raw)
    assert tss.rsp == (1, 2, 3)
    assert tss.ist == (11, 12, 13, 14, 15, 16, 17)
    assert tss.iomap_base == 104
    assert (tss.stack_for(0), tss.stack_for(1), tss.stack_for(7)) == (1, 11, 17)


def test_short() -> None:
    with pytest.raises(FormatError, match="104 bytes"):
        decode_tss(bytes(103))
