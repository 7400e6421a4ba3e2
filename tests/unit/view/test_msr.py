"""MSR reports as text and JSON, from values made here."""

from exogdb.reading import Reading, Unavailable, Value
from exogdb.view.msr import MsrReport, check_value, msrs_to_json, render_msrs
from exogdb.view.style import PLAIN, Style
from exogdb.x86.msr import SYSCALL_MSRS, parse_msr

LSTAR = 0xFFFFFFFF80106000
VALUES: dict[str, Value] = {
    "IA32_EFER": Reading(0x8D01, "gdb"),
    "IA32_STAR": Reading(0x0018000800000000, "qmp"),
    "IA32_LSTAR": Reading(LSTAR, "qmp"),
    "IA32_CSTAR": Reading(0, "qmp"),
    "IA32_FMASK": Reading(0x200, "qmp"),
    "IA32_FS_BASE": Reading(0x7FFFF0000000, "gdb"),
    "IA32_GS_BASE": Unavailable("QEMU went away"),
    "IA32_KERNEL_GS_BASE": Reading(0x800000000000, "gdb"),
}
ONE = MsrReport(SYSCALL_MSRS, {2: VALUES}, {LSTAR: "syscall_entry"})


def lines_of(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def test_every_value_has_its_source_and_meaning() -> None:
    lines = lines_of(render_msrs(ONE, PLAIN))
    assert lines["EFER"].split()[1:] == ["0x0000000000008d01", "gdb", "SCE", "LME", "LMA", "NXE", "TCE"]
    assert "syscall_entry" in lines["LSTAR"]
    assert "SYSCALL clears IF" in lines["FMASK"]
    assert "QEMU went away" in lines["GS_BASE"]
    assert "0x0000000000000000" not in lines["GS_BASE"]


def test_what_is_wrong_is_said() -> None:
    text = render_msrs(ONE, Style(width=0))
    assert "! TF is not cleared" in text
    assert "! not a canonical address" in text
    assert check_value(parse_msr("lstar"), LSTAR) == ()
    assert check_value(parse_msr("lstar"), 0xFF11000000000000)
    assert check_value(parse_msr("lstar"), 0xFF11000000000000, address_bits=57) == ()


def test_lines_fit_the_terminal_and_fill_it() -> None:
    widest = max(len(line) for line in render_msrs(ONE, Style(width=100)).splitlines())
    assert 95 <= widest <= 100


def test_the_ss_that_amd_loads_is_said_where_it_differs() -> None:
    assert "SYSRETQ (to 64-bit) loads CS 0x2b, SS 0x23 (AMD: 0x20)" in render_msrs(ONE, Style(width=0))
    same = {**VALUES, "IA32_STAR": Reading(0x001B000800000000, "qmp")}
    assert "AMD: 0x2" not in render_msrs(MsrReport(SYSCALL_MSRS, {0: same}, {}), Style(width=0))


def test_json_keeps_unavailable_apart_from_zero() -> None:
    (cpu,) = msrs_to_json(ONE)["cpus"]
    assert cpu["cpu"] == 2
    assert cpu["msrs"]["IA32_GS_BASE"] == {"unavailable": "QEMU went away"}
    assert cpu["msrs"]["IA32_CSTAR"]["value"] == "0x0"
    assert cpu["msrs"]["IA32_LSTAR"]["decoded"] == {"symbol": "syscall_entry"}
    assert cpu["msrs"]["IA32_EFER"]["decoded"]["flags"][-1] == "TCE"
    assert cpu["msrs"]["IA32_STAR"]["decoded"]["sysret_ss"] == "0x23"


def test_what_is_wrong_is_said_side_by_side_once_and_of_which_cpus() -> None:
    other = {**VALUES, "IA32_FMASK": Reading(0x47700, "qmp"), "IA32_LSTAR": Reading(1 << 63, "qmp")}
    text = render_msrs(MsrReport(SYSCALL_MSRS, {0: VALUES, 1: other, 2: VALUES}, {}), PLAIN)
    assert "! FMASK of CPU 0, CPU 2: TF is not cleared" in text
    assert "! LSTAR of CPU 1: not a canonical address" in text
    assert text.count("! KERNEL_GS_BASE: not a canonical address") == 1
    narrow = render_msrs(MsrReport(SYSCALL_MSRS, {0: VALUES, 1: other, 2: VALUES}, {}), Style(width=80))
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_cpus_side_by_side_with_differences_marked() -> None:
    other = {**VALUES, "IA32_LSTAR": Reading(LSTAR + 16, "qmp"), "IA32_GS_BASE": Reading(0, "gdb")}
    lines = lines_of(render_msrs(MsrReport(SYSCALL_MSRS, {0: VALUES, 1: other}, {}), PLAIN))
    assert "!=" in lines["LSTAR"]
    assert "!=" in lines["GS_BASE"]
    assert "!=" not in lines["STAR"]
    assert any("QEMU went away" in line and "CPU 0 IA32_GS_BASE" in line for line in lines.values())


def test_many_cpus_fit_the_terminal_and_all_are_shown() -> None:
    report = MsrReport(SYSCALL_MSRS, dict.fromkeys(range(8), VALUES), {})
    text = render_msrs(report, Style(width=80))
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"CPU {cpu}" in text for cpu in range(8))


def test_touching_the_guest_is_said_exactly_when_it_happened() -> None:
    touched = MsrReport([parse_msr("pat")], {0: {"IA32_PAT": Reading(0x7040600070406, "rdmsr")}}, {})
    assert "The guest was touched" in render_msrs(touched, PLAIN)
    assert "PA0=WB" in render_msrs(touched, PLAIN)
    assert "touched" not in render_msrs(ONE, PLAIN)


def test_a_zero_from_rdmsr_is_not_shown_as_proof_of_an_msr() -> None:
    zero = MsrReport([parse_msr("0x1234567")], {0: {"MSR_0x1234567": Reading(0, "rdmsr")}}, {})
    assert "may be no such MSR" in render_msrs(zero, Style(width=0))
    quiet = MsrReport([parse_msr("cstar")], {0: {"IA32_CSTAR": Reading(0, "qmp")}}, {})
    assert "may be no such MSR" not in render_msrs(quiet, Style(width=0))


def test_colour_only_when_asked_for() -> None:
    assert "\x1b[" not in render_msrs(ONE, PLAIN)
    assert "\x1b[" in render_msrs(ONE, Style(colour=True, width=80))
