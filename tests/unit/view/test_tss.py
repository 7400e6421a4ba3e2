"""The TSS as text and JSON."""

from exogdb.view.style import PLAIN, Style
from exogdb.view.tss import StackRow, TssReport, render_tss, tss_to_json

STACKS = [
    StackRow("RSP0", 0xFFFFFFFFD0020000, "", "", ("0x20",)),
    StackRow("IST1", 0x1000, "", "not mapped (PTE not present)", ("#DF", "reserved", "reserved")),
    StackRow("IST2", 0, "", "", ()),
    StackRow("IST3", 0x5000, "", "", ("NMI", "0x20", "0x21", "0x22", "0x30")),
]


def test_text() -> None:
    lines = {
        line.split()[0]: line
        for line in render_tss(TssReport(0, 0x30, 0x5000, 0x67, STACKS, 104), Style(width=0)).splitlines()
    }
    assert "mapped, writable" in lines["RSP0"]
    assert "not mapped (PTE not present)" in lines["IST1"]
    assert "#DF (and 2 reserved)" in lines["IST1"]
    assert "not set" in lines["IST2"]
    assert "NMI 0x20-0x22 0x30" in lines["IST3"]
    assert "none" in lines["I/O"]
    assert "!" not in lines


def test_what_cannot_work_is_marked_only_where_a_gate_needs_it() -> None:
    """Linux keeps a scratch word of the user's in RSP2, which nothing ever loads."""
    scratch = StackRow("RSP2", 0x7FFC0000, "", "in a user page", ())
    needed = StackRow("IST2", 0, "", "", ("NMI",))
    text = render_tss(TssReport(0, 0x30, 0x5000, 0x67, [scratch, needed], 104), Style(colour=True, width=0))
    rsp2, ist2 = (line for line in text.splitlines() if "RSP2" in line or "IST2" in line)
    bad = Style(colour=True).paint("bad", "x").partition("x")[0]
    assert bad not in rsp2
    assert bad in ist2


def test_a_limit_that_is_too_short() -> None:
    assert "! limit 0x57 is below 0x67" in render_tss(TssReport(0, 0x30, 0x5000, 0x57, STACKS, 104), PLAIN)


def test_lines_fit_the_terminal() -> None:
    busy = [StackRow("IST1", 0x1000, "", "", tuple(f"#{vector:02d}" for vector in range(32)))]
    text = render_tss(TssReport(0, 0x30, 0x5000, 0x67, busy, 104), Style(width=80))
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"#{vector:02d}" in text for vector in range(32))


def test_an_io_map_inside_the_limit() -> None:
    """Intel SDM Vol. 1, I/O Permission Bit Map: at or above the limit means none."""
    assert "at offset 0x68" in render_tss(TssReport(0, 0x30, 0x5000, 0x2067, STACKS, 104), PLAIN)
    assert "none" in render_tss(TssReport(0, 0x30, 0x5000, 0x68, STACKS, 104), PLAIN)


def test_json() -> None:
    rsp0, ist1, ist2, _ = tss_to_json(TssReport(0, 0x30, 0x5000, 0x67, STACKS, 104))["stacks"]
    assert (rsp0["usable"], ist1["usable"], ist2["usable"]) == (True, False, False)
    assert ist1["problem"] == "not mapped (PTE not present)"
