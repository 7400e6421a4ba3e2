"""PAT, APIC_BASE and SYSENTER_CS."""

from exogdb.x86.apic_base import decode_apic_base
from exogdb.x86.pat import decode_pat
from exogdb.x86.selector import Selector
from exogdb.x86.sysenter import decode_sysenter_cs


def test_pat_of_linux_and_reserved_encodings() -> None:
    assert decode_pat(0x0407050600070106) == ("WB", "WC", "UC-", "UC", "WB", "WP", "UC-", "WT")
    assert decode_pat(0x02)[0] == "reserved(0x2)"
    assert decode_pat(0x0E)[0] == "reserved(0xe)"


def test_apic_base_modes() -> None:
    assert decode_apic_base(0xFEE00D00).mode == "x2APIC"
    assert decode_apic_base(0xFEE00000).mode == "disabled"
    assert decode_apic_base(0xFEE00400).mode == "invalid"
    assert decode_apic_base(0xFEE00902).flags == ("BSP", "EN", "0x2")


def test_sysenter_selectors() -> None:
    cs = decode_sysenter_cs(0x10)
    assert (cs.sysenter_cs.value, cs.sysenter_ss.value) == (0x10, 0x18)
    assert (cs.sysexit32_cs.value, cs.sysexit32_ss.value) == (0x23, 0x2B)
    assert (cs.sysexit64_cs.value, cs.sysexit64_ss.value) == (0x33, 0x3B)
    assert not decode_sysenter_cs(0x3).enabled


def test_null_selectors_have_four_forms() -> None:
    assert [Selector(value).is_null for value in (0, 3, 4, 8)] == [True, True, False, False]
    assert Selector(0x0F).in_ldt
