"""A GDT as a kernel lays it out: slots, selectors, the 16-byte TSS."""

from exogdb.x86.descriptor import SystemDescriptor
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.selector import Selector

CODE, DATA, TSS = 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x0000_8B00_1000_0067


def table(*words: int) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def test_tss_takes_two_slots() -> None:
    gdt = decode_gdt(table(0, CODE, DATA, TSS, 0xFFFF8000, DATA), base=0xFFFF800000001000)
    assert [entry.selector.value for entry in gdt.entries] == [0, 8, 16, 24, 40]
    assert gdt.limit == 47
    assert gdt.entries[3].address == 0xFFFF800000001018
    tss = gdt.find_descriptor(Selector(24))
    assert isinstance(tss, SystemDescriptor)
    assert tss.base == 0xFFFF800000001000
    assert gdt.find_descriptor(Selector(32)) is None


def test_rpl_does_not_matter_for_lookup_the_ldt_bit_does() -> None:
    gdt = decode_gdt(table(0, CODE), base=0)
    assert gdt.find_descriptor(Selector(8 | 3)) is not None
    assert gdt.find_descriptor(Selector(8 | 4)) is None


def test_a_cut_tail_is_named() -> None:
    gdt = decode_gdt(table(0, CODE) + bytes(3) + b"\x01", base=0)
    assert len(gdt.entries) == 2
    assert "offset 0x10" in gdt.damage


def test_entry_0_is_no_descriptor_whatever_it_holds() -> None:
    """As a TSS it would take the slot of the kernel's code with it."""
    gdt = decode_gdt(table(TSS, CODE), base=0)
    kinds = {entry.selector.value: entry.descriptor.kind for entry in gdt.entries}
    assert kinds == {0: "null", 8: "64-bit code"}
    assert gdt.entries[0].descriptor.raw == TSS
