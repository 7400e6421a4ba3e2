"""Descriptors: the values every 64-bit kernel has, and the reserved ones."""

import pytest

from exogdb.errors import FormatError
from exogdb.x86.descriptor import CallGate, CodeDescriptor, DataDescriptor, SystemDescriptor, decode_descriptor


def descriptor_bytes(raw: int, size: int = 8) -> bytes:
    return raw.to_bytes(size, "little")


def test_kernel_code() -> None:
    code = decode_descriptor(descriptor_bytes(0x00AF9B000000FFFF))
    assert isinstance(code, CodeDescriptor)
    assert (code.long, code.default_32, code.dpl, code.present, code.readable) == (True, False, 0, True, True)
    assert (code.base, code.limit) == (0, 0xFFFFFFFF)


def test_user_data() -> None:
    data = decode_descriptor(descriptor_bytes(0x00CFF3000000FFFF))
    assert isinstance(data, DataDescriptor)
    assert (data.dpl, data.writable, data.expand_down, data.accessed) == (3, True, False, True)


def test_tss_has_a_64_bit_base() -> None:
    low = 0x0000_8900_0000_0067 | (0x345678 << 16) | (0x12 << 56)
    tss = decode_descriptor(descriptor_bytes(low | 0xFFFF8000 << 64, 16))
    assert isinstance(tss, SystemDescriptor)
    assert (tss.base, tss.limit, tss.kind, tss.is_tss) == (
        0xFFFF800012345678,
        0x67,
        "64-bit TSS (available)",
        True,
    )


def test_truncated() -> None:
    with pytest.raises(FormatError, match="8 bytes"):
        decode_descriptor(bytes(7))
    with pytest.raises(FormatError, match="16-byte"):
        decode_descriptor(descriptor_bytes(0x0000_8900_0000_0067))


def test_a_system_type_that_long_mode_reserves() -> None:
    odd = decode_descriptor(descriptor_bytes(0x0000_8100_0000_0067))
    assert odd.kind == "reserved system type 0x1"
    assert odd.size == 8


def test_a_call_gate_has_a_target_and_no_base() -> None:
    """Its offset's upper half lies where other descriptors have G, D/B, L and the end of base and limit."""
    low = 0x5678 | 0x08 << 16 | 0xEC00 << 32 | 0x8010 << 48
    gate = decode_descriptor(descriptor_bytes(low | 0xFFFFFFFF << 64, 16))
    assert isinstance(gate, CallGate)
    assert (gate.selector.value, gate.offset, gate.dpl, gate.present) == (8, 0xFFFFFFFF80105678, 3, True)
    assert (gate.kind, gate.size) == ("64-bit call gate", 16)


def test_the_gates_of_an_idt_are_no_descriptors() -> None:
    for type_ in (0xE, 0xF):
        gate = decode_descriptor(descriptor_bytes(0x0000_8000_0000_0000 | type_ << 40, 16))
        assert (gate.kind, gate.size) == (f"reserved system type {type_:#x}", 8)
