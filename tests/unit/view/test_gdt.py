"""The GDT as text and JSON."""

from exogdb.view.gdt import GdtReport, gdt_to_json, render_gdt
from exogdb.view.style import PLAIN, Style
from exogdb.x86.gdt import decode_gdt

WORDS = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x0000_8B00_1000_0067, 0xFFFF8000)
GDT = decode_gdt(b"".join(word.to_bytes(8, "little") for word in WORDS), 0x1000)
REPORT = GdtReport(0, GDT, {8: ("CS",), 24: ("TR",)}, {8: ("SYSCALL CS",)})


def test_text() -> None:
    lines = render_gdt(REPORT, Style(width=0)).splitlines()
    assert lines[0] == "CPU 0  GDT at 0x1000, limit 0x27"
    assert lines[3].split("  ")[0] == "0x08"
    assert "64-bit code, DPL 0, readable, accessed" in lines[3]
    assert lines[3].endswith("CS, SYSCALL CS")
    assert "0xffff800000001000" in lines[5]


def test_lines_fit_the_terminal_and_do_not_break_behind_dpl() -> None:
    lines = render_gdt(REPORT, Style(width=80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines[-2:]] == [
        "0x18      64-bit TSS (busy),      0xffff800000001000  0x67        TR",
        "DPL 0",
    ]


def test_json_has_bases_only_where_there_are_any() -> None:
    null, code, _, tss = gdt_to_json(REPORT)["entries"]
    assert "base" not in null
    assert (code["loaded"], code["star"]) == (["CS"], ["SYSCALL CS"])
    assert (tss["kind"], tss["base"]) == ("64-bit TSS (busy)", "0xffff800000001000")


def test_null_descriptors_are_counted_unless_something_uses_them() -> None:
    """A CPU at reset has a table of 8192."""
    text = render_gdt(GdtReport(0, decode_gdt(bytes(64), 0), {}, {16: ("SYSRETQ CS",)}), PLAIN)
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["0x00", "0x10", "6"]
    assert "6 more descriptors are null" in text


def test_damage_is_shown() -> None:
    cut = decode_gdt(bytes(8) + bytes(5), 0)
    assert cut.damage in render_gdt(GdtReport(0, cut, {}, {}), PLAIN)
    assert gdt_to_json(GdtReport(0, cut, {}, {}))["damage"]


def test_a_call_gate_says_where_it_leads_and_entry_0_what_it_holds() -> None:
    words = (0x1234, 0x8010_EC00_0008_5678, 0xFFFFFFFF)
    gdt = decode_gdt(b"".join(word.to_bytes(8, "little") for word in words), 0)
    report = GdtReport(0, gdt, {}, {})
    text = render_gdt(report, Style(width=0))
    assert "null (holds 0x1234, never read)" in text
    assert text.endswith("64-bit call gate, DPL 3, to 0x08:0xffffffff80105678")
    _, gate = gdt_to_json(report)["entries"]
    assert (gate["target_selector"], gate["target"]) == ("0x8", "0xffffffff80105678")
    assert "base" not in gate
