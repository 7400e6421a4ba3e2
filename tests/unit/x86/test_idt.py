"""Gates of the IDT."""

import pytest

from exogdb.errors import FormatError
from exogdb.x86.descriptor import decode_descriptor
from exogdb.x86.idt import check_gate, decode_gate, decode_idt
from exogdb.x86.tss import decode_tss

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


def test_a_gate_that_cannot_work_is_told_why() -> None:
    code = decode_descriptor((0x00AF9B000000FFFF).to_bytes(8, "little"))
    empty, full = decode_tss(bytes(104)), decode_tss(b"\x10" * 104)
    gate = decode_gate(PAGE_FAULT.to_bytes(16, "little"), 14)
    assert check_gate(gate, code, full) == ()
    assert check_gate(gate, code, empty) == (
        "IST2 of the TSS is 0: the CPU would push to the top of the address space",
    )
    assert "no present 64-bit code segment" in check_gate(gate, None, full)[0]
    of_ldt = decode_gate((PAGE_FAULT | 4 << 16).to_bytes(16, "little"), 14)
    assert check_gate(of_ldt, None, full) == (
        "the selector 0x000c (LDT 1, RPL 0) is one of the LDT, which was not looked at",
    )
    assert check_gate(gate, code, None) == ("IST2 is named, and there is no TSS: TR is null",)
    of_ring_3 = decode_descriptor((0x00AFFB000000FFFF).to_bytes(8, "little"))
    assert "has DPL 3: #GP" in check_gate(gate, of_ring_3, full)[0]
    conforming = decode_descriptor((0x00AF9F000000FFFF).to_bytes(8, "little"))
    assert "is conforming" in check_gate(gate, conforming, full)[0]
    bad = decode_gate((0x8500_0000_0000 | 0x7F << 64).to_bytes(16, "little"), 0)
    assert [text.split(":")[0] for text in check_gate(bad, code, full)] == ["reserved type 0x5"]
    odd = decode_gate((0xFF000000_0000_8E00_0008_0000).to_bytes(16, "little"), 0)
    assert check_gate(odd, code, full, 57) == ()
    assert "not canonical with 48-bit" in check_gate(odd, code, full)[0]
    wild = decode_gate((0x7F000000_0000_8E00_0008_0000).to_bytes(16, "little"), 0)
    assert "not canonical" in check_gate(wild, code, full)[0]
