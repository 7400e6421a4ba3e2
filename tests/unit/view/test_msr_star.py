"""IA32_STAR drawn."""

from dataclasses import replace

from exogdb.view.msr_star import StarReport, render_star, star_to_json
from exogdb.view.style import PLAIN
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.star import check_star, decode_star

WORDS = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
GDT = decode_gdt(b"".join(word.to_bytes(8, "little") for word in WORDS), 0x1000)


def report(value: int) -> StarReport:
    star = decode_star(value)
    return StarReport(0, star, "qmp", GDT, check_star(star, GDT.find_descriptor))


def test_a_good_star() -> None:
    text = render_star(report(0x001B000800000000), PLAIN)
    assert "|    0x001b    |    0x0008    |     0x00000000      |" in text
    assert "Every selector hits what it needs." in text
    assert "!" not in text


def test_each_load_with_what_it_hits() -> None:
    loads = star_to_json(report(0x0018000800000000))["loads"]
    assert [load["hits"].split(",")[0] for load in loads] == [
        "64-bit code",
        "data",
        "64-bit code",
        "data",
        "null",
    ]


def test_findings_are_marked() -> None:
    assert "! STAR[63:48] has RPL 0" in render_star(report(0x0018000800000000), PLAIN)


def test_a_value_from_rdmsr_says_that_the_guest_was_touched() -> None:
    one = report(0x001B000800000000)
    assert "touched" not in render_star(one, PLAIN)
    assert "The guest was touched" in render_star(replace(one, source="rdmsr"), PLAIN)


def test_selectors_outside_the_table() -> None:
    assert "no descriptor in the GDT" in render_star(report(0x0F03000800000000), PLAIN)
