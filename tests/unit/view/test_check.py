"""What the doctor prints: findings of several CPUs as one, reasons for what was not checked, and the catalogue."""

import json
from dataclasses import replace
from pathlib import Path

from exogdb.abi.check import RULES
from exogdb.abi.check.rule import run_rules
from exogdb.reading import Unavailable
from exogdb.view.check import render_catalogue, render_report, render_rules, report_to_json
from exogdb.view.style import PLAIN, Style
from exogdb.x86.gdt import decode_gdt
from tests.harness.kernel import ROOT
from tests.unit.abi.check.sound import sound_facts, table, with_cpu, with_msr

CATALOGUE = ROOT / "docs" / "checks.md"
BEGIN, END = "<!-- rules -->\n\n", "\n<!-- end of rules -->\n"


def test_the_same_finding_on_several_cpus_is_shown_once() -> None:
    text = render_report(run_rules(RULES, with_msr(sound_facts(), "IA32_FMASK", 0x257DD5)), PLAIN)
    assert text.startswith("error EXO010  not kept: FMASK clears IF\n")
    assert text.count("found ") == 1
    assert "  where     IA32_FMASK, CPUs 0, 1\n" in text
    assert text.endswith(
        f"1 error, 0 warnings, 0 notes; {len(RULES)} rules: {len(RULES) - 1} sound, 0 not checked"
    )


def test_a_finding_says_where_with_the_address_that_its_words_do_not_have() -> None:
    elsewhere = with_msr(sound_facts(), "IA32_STAR", 0x001B_0028 << 32)
    lines = render_report(run_rules(RULES, elsewhere), PLAIN).splitlines()
    [where] = [line for line in lines if line.startswith("  where     IA32_STAR and the GDT, 0xffffffff80300028")]
    assert where.endswith("CPUs 0, 1")
    two_tables = with_cpu(elsewhere, lambda cpu: replace(cpu, gdt=decode_gdt(table(), 0xFFFFFFFF80400000)), (1,))
    text = render_report(run_rules(RULES, two_tables), PLAIN)
    assert "  where     IA32_STAR and the GDT, CPUs 0, 1\n" in text


def test_what_was_not_checked_is_shown_with_its_reason() -> None:
    blind = with_cpu(sound_facts(), lambda cpu: replace(cpu, tss=Unavailable("no QMP socket")), (1,))
    text = render_report(run_rules(RULES, blind), PLAIN)
    assert "EXO041    TSS.RSP0 is a sound kernel stack: no QMP socket [CPU 1]" in text
    assert text.endswith(f"{len(RULES) - 5} sound, 5 not checked")


def test_errors_come_first_and_lines_fit_the_terminal() -> None:
    facts = with_msr(with_msr(sound_facts(), "IA32_FMASK", 0), "IA32_CSTAR", 0)
    text = render_report(run_rules(RULES, facts), Style(colour=False, width=72))
    order = [line.split()[0] for line in text.splitlines() if line[:1].isalpha() and "EXO" in line[:16]]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert max(map(len, text.splitlines()[:-1])) <= 72


def test_sound_rules_are_named_when_asked_for() -> None:
    text = render_report(run_rules(RULES, sound_facts()), PLAIN, show_sound=True)
    assert all(f"  {rule.id}  {rule.title}" in text for rule in RULES)


def test_json_has_every_rule_and_hex_addresses() -> None:
    report = run_rules(RULES, with_msr(sound_facts(), "IA32_LSTAR", 1 << 47))
    answer = json.loads(json.dumps(report_to_json(report)))
    assert [each["id"] for each in answer["rules"]] == [rule.id for rule in RULES]
    [broken] = [each for each in answer["rules"] if each["status"] == "found"]
    assert (broken["id"], answer["errors"], answer["warnings"]) == ("EXO002", 1, 0)
    assert broken["findings"][0]["address"] == "0x800000000000"
    assert [each["cpu"] for each in broken["findings"]] == [0, 1]
    assert answer["not_checked"] == 3
    assert not answer["failed"]
    assert report_to_json(report, failed=True)["failed"]


def test_the_list_has_a_line_for_each_rule() -> None:
    lines = render_rules(RULES, PLAIN).splitlines()
    assert len(lines) == len(RULES)
    assert lines[0] == "EXO001  error    SYSCALL is enabled"


def test_the_catalogue_in_the_docs_is_the_table() -> None:
    text = CATALOGUE.read_text()
    assert text == with_catalogue(text), "run `python -m tests.unit.view.test_check`"


def with_catalogue(text: str) -> str:
    """`text` with the rules anew; what is in front of them and behind them is written by hand."""
    front, _, rest = text.partition(BEGIN)
    _, _, back = rest.partition(END)
    return f"{front}{BEGIN}{render_catalogue(RULES)}{END}{back}"


def write_catalogue(path: Path) -> None:
    path.write_text(with_catalogue(path.read_text()))


if __name__ == "__main__":
    write_catalogue(CATALOGUE)
