"""The code behind IA32_LSTAR."""

from dataclasses import replace

from exogdb.view.msr_lstar import CodeLine, LstarReport, lstar_to_json, render_lstar
from exogdb.view.style import PLAIN, Style

CODE = [
    CodeLine(0x1000, "syscall_entry", "swapgs", "entry.S:28", "swapgs // to the kernel's GS"),
    CodeLine(0x1003, "syscall_entry+3", "mov qword ptr gs:[8], rsp", "entry.S:29", "mov gs:[USER_RSP], rsp"),
    CodeLine(0x100C, "syscall_entry+12", "nop", "entry.S:29", "mov gs:[USER_RSP], rsp"),
]
REPORT = LstarReport(0, 0x1000, "qmp", CODE, ["its page is writable"])


def test_source_lines_stand_once_in_front_of_their_instructions() -> None:
    text = render_lstar(REPORT, PLAIN)
    assert text.splitlines()[0] == "CPU 0  IA32_LSTAR 0x0000000000001000  (qmp)  syscall_entry"
    assert text.count("mov gs:[USER_RSP], rsp") == 1
    assert text.splitlines()[-1] == "! its page is writable"


def test_a_source_line_keeps_to_one_line_of_the_terminal() -> None:
    code = [replace(CODE[0], text_of_source="swapgs                 // to the kernel's GS")]
    line = render_lstar(replace(REPORT, code=code), Style(width=30)).splitlines()[1]
    assert line == "entry.S:28  swapgs  // to t..."


def test_a_value_from_rdmsr_says_that_the_guest_was_touched() -> None:
    assert "touched" not in render_lstar(REPORT, PLAIN)
    assert "The guest was touched" in render_lstar(replace(REPORT, source="rdmsr"), PLAIN)


def test_highlighting_only_with_colour() -> None:
    assert "\x1b[" not in render_lstar(REPORT, PLAIN)
    assert "\x1b[" in render_lstar(REPORT, Style(colour=True))


def test_json() -> None:
    report = lstar_to_json(REPORT)
    assert [line["text"] for line in report["code"]] == ["swapgs", "mov qword ptr gs:[8], rsp", "nop"]
    assert report["findings"] == ["its page is writable"]
