"""The IDT as text and JSON."""

from exogdb.view.idt import IdtReport, idt_to_json, render_idt
from exogdb.view.style import PLAIN
from exogdb.x86.idt import decode_gate

GATE = decode_gate((0xFFFFFFFF_8012_8E02_0008_3456).to_bytes(16, "little"), 14)
REPORT = IdtReport(1, 0x2000, 0xFFF, [GATE], 255, {GATE.handler: "page_fault"}, {14: ("IST2 of the TSS is 0",)})


def test_text() -> None:
    text = render_idt(REPORT, PLAIN)
    (gate,) = [line for line in text.splitlines() if line.startswith("0x0e")]
    assert gate.split() == ["0x0e", "#PF", "interrupt", "0", "IST2", "0x08", "0xffffffff80123456", "page_fault"]
    assert "! 0x0e #PF: IST2 of the TSS is 0" in text
    assert "255 more gates are not present" in text


def test_an_interrupt_is_called_by_its_number_alone() -> None:
    gate = decode_gate((0xFFFFFFFF_8012_8E00_0008_3456).to_bytes(16, "little"), 0x20)
    line = render_idt(IdtReport(0, 0x2000, 0xFFF, [gate], 0, {}, {}), PLAIN).splitlines()[-1]
    assert line.split() == ["0x20", "interrupt", "0", "-", "0x08", "0xffffffff80123456"]


def test_json() -> None:
    (gate,) = idt_to_json(REPORT)["gates"]
    assert (gate["vector"], gate["ist"], gate["symbol"]) == (14, 2, "page_fault")
    assert gate["findings"] == ["IST2 of the TSS is 0"]
