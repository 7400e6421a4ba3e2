"""Gates of the IDT."""

import pytest

from exogdb.errors import FormatError
from exogdb.x86.idt import decode_gate, decode_idt

# #PF: interrupt gate, IST 2, selector 8, handler 0xffffffff80123456, DPL 0.
PAGE_FAULT = 0xFFFFFFFF_8012_8E02_0008_3456


def test_gate() -> None:
    gate = decode_gate(PAGE_FAULT.to_bytes(16, "little"), 14)
    assert gate.handler == 0xFFFFFFFF80123456
    assert (gate.selector.value, gate.ist, gate.kind, gate.dpl, gate.present) == (8, 2, "interrupt", 0, True)
    assert gate.name == "#PF"


def test_user_trap_gate() -> None:
    gate = decode_gate((PAGE_FAULT | 0x6100_0000_0000).to_bytes(16, "little"), 3)
    assert (gate.kind, gate.dpl, gate.name) == ("trap", 3, "#BP")


def test_reserved_type_is_said() -> None:
    assert decode_gate((0x8500_0000_0000).to_bytes(16, "little"), 0).kind == "reserved type 0x5"


def test_at_most_256_and_only_whole_gates() -> None:
    assert len(decode_idt(bytes(16 * 300))) == 256
    assert len(decode_idt(bytes(16 * 2 + 15))) == 2
    with pytest.raises(FormatError):
        decode_gate(bytes(15), 0)
