"""exogdb/errors.py: what a user reads when something cannot be had."""

import pytest

from exogdb.errors import ExoError, FormatError, MemoryFault


def test_a_fault_names_the_address_and_keeps_it() -> None:
    fault = MemoryFault(0xFFFF800000000000, 1)
    assert str(fault) == fault.reason == "cannot read 1 byte at 0xffff800000000000"
    assert (fault.address, fault.size) == (0xFFFF800000000000, 1)


def test_a_format_error_names_the_offset_when_it_is_known() -> None:
    with pytest.raises(ExoError, match=r"^bad magic \(at offset 0x10\)$"):
        raise FormatError("bad magic", 0x10)
