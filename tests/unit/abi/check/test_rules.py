"""Every rule in both directions: the flaw it is there for trips it and no other; a sound machine trips none."""

from dataclasses import replace

import pytest

from exogdb.abi.check import RULES
from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Report, Rule, run_rules
from exogdb.abi.stub.entry_path import Comparison, RegisterReturn
from exogdb.abi.stub.symbolic import Constant, Returned
from exogdb.reading import Unavailable
from tests.unit.abi.check.changes import with_call_gate, with_frame_structure, with_image_page, with_kernel_rsp
from tests.unit.abi.check.flaws import FLAWS, Change
from tests.unit.abi.check.sound import (
    CALL,
    EXIT,
    TEXT,
    page,
    sound_facts,
    stack_top,
    state,
    with_cpu,
    with_exit,
    with_page,
    with_path,
)


def found(report: Report) -> list[str]:
    return [result.rule.id for result in report.results if result.findings]


def test_a_sound_machine_trips_no_rule_and_leaves_none_unchecked() -> None:
    report = run_rules(RULES, sound_facts())
    assert [
        (each.rule.id, each.findings, each.not_checked) for each in report.results if each.status != "sound"
    ] == []


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_trips_its_rule_and_no_other(flaw: str) -> None:
    expected, severity, change = FLAWS[flaw]
    report = run_rules(RULES, change(sound_facts()))
    assert found(report) == expected.split()
    assert report.worst == severity


def test_code_that_was_freed_after_booting_is_no_text() -> None:
    freed = with_image_page(sound_facts(), TEXT.start, writable=True, user=False, nx=True)
    assert found(run_rules(RULES, freed)) == []


def test_every_rule_has_a_flaw_that_trips_it() -> None:
    assert {rule for expected, _, _ in FLAWS.values() for rule in expected.split()} == {rule.id for rule in RULES}


def test_a_return_address_that_the_dispatcher_may_have_tested_is_not_checked() -> None:
    branch = Comparison(EXIT - 20, (Returned("rax", CALL), Constant(0)), EXIT + 0x100, True)
    kept = with_exit(sound_facts(), rax=RegisterReturn("restored", "", frame_offset=64))
    path = replace(known(kept.entries[0].path), comparisons=(branch,))
    facts = with_path(kept, lambda _: path)
    [result] = [each for each in run_rules(RULES, facts).results if each.status != "sound"]
    assert (result.rule.id, result.status) == ("EXO034", "not checked")


def test_a_32_bit_return_goes_to_no_address_that_could_be_wrong() -> None:
    last = state(EXIT, "sysret", after_dispatch=True, inside=False)
    facts = with_path(
        sound_facts(), lambda path: replace(path, comparisons=(), states={**path.states, EXIT: last})
    )
    assert found(run_rules(RULES, facts)) == []


def test_a_call_gate_of_the_kernels_own_leads_no_program_anywhere() -> None:
    assert found(run_rules(RULES, with_call_gate(sound_facts(), dpl=0))) == []


def test_only_the_tss_asks_for_aligned_tops() -> None:
    """A stub may make up for a top that is not a multiple of 16; EXO032 counts to the call."""
    top = stack_top(0, 0) - 8
    facts = with_page(with_kernel_rsp(sound_facts(), top), page(top - 8, writable=True, nx=True))
    assert found(run_rules([rule for rule in RULES if rule.id == "EXO040"], facts)) == []


def test_a_frame_structure_in_the_order_of_the_pushes_is_sound() -> None:
    fields = (
        ("r15", 0),
        ("r14", 8),
        ("r13", 16),
        ("r12", 24),
        ("bx", 32),
        ("rbp", 40),
        ("r11", 48),
        ("user_rip", 56),
    )
    assert found(run_rules(RULES, with_frame_structure(sound_facts(), fields))) == []
    assert found(run_rules(RULES, with_frame_structure(sound_facts(), (("rax", 0),)))) == ["EXO033"]


def nothing_readable(facts: Facts) -> Facts:
    lost = Unavailable("the guest does not answer")

    def blind(cpu: CpuFacts) -> CpuFacts:
        registers = dict.fromkeys(cpu.registers, lost)
        return replace(
            cpu, registers=registers, msrs=dict.fromkeys(cpu.msrs, lost), gdt=lost, idt=lost, tss=lost,
            kernel_gs=lost, kernel_rsp=lost, pages=dict.fromkeys(cpu.pages, lost),
        )  # fmt: skip

    return replace(with_cpu(facts, blind), entries=(), sections=lost, image_pages={}, kernel_pages=lost)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_that_could_read_nothing_is_not_sound(rule: Rule) -> None:
    report = run_rules(RULES, nothing_readable(sound_facts()))
    [result] = [each for each in report.results if each.rule is rule]
    assert result.status == "not checked"
    assert all(each.reason for each in result.not_checked)


def lose_registers(cpu: CpuFacts) -> CpuFacts:
    return replace(cpu, registers=dict.fromkeys(cpu.registers, Unavailable("x")))


def lose_tables(cpu: CpuFacts) -> CpuFacts:
    return replace(cpu, gdt=Unavailable("x"), idt=Unavailable("x"), tss=Unavailable("x"))


def lose_slots(cpu: CpuFacts) -> CpuFacts:
    return replace(cpu, kernel_gs=Unavailable("x"), kernel_rsp=Unavailable("x"))


LOSSES: dict[str, Change] = {
    "MSRs": lambda f: with_cpu(f, lambda cpu: replace(cpu, msrs=dict.fromkeys(cpu.msrs, Unavailable("no QMP")))),
    "registers": lambda f: with_cpu(f, lose_registers),
    "tables": lambda f: with_cpu(f, lose_tables),
    "pages": lambda f: replace(
        with_cpu(f, lambda cpu: replace(cpu, pages={})), image_pages={}, kernel_pages=Unavailable("too many")
    ),
    "entry path": lambda f: replace(f, entries=(replace(f.entries[0], path=Unavailable("code cannot be read")),)),
    "per-CPU slots": lambda f: with_cpu(f, lose_slots),
    "debug info": lambda f: replace(f, entries=(replace(f.entries[0], signature=Unavailable("no debug info")),)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_flaw_never_looks_sound_because_something_could_not_be_read(loss: str) -> None:
    looks_sound = {flaw: rules for flaw in FLAWS if (rules := sound_after(loss, flaw))}
    assert not looks_sound


def sound_after(loss: str, flaw: str) -> list[str]:
    """The rules that the flaw trips and that say `sound` when part of the facts is lost."""
    expected, _, change = FLAWS[flaw]
    rules = [rule for rule in RULES if rule.id in expected.split()]
    report = run_rules(rules, LOSSES[loss](change(sound_facts())))
    assert len(report.results) == len(expected.split())
    return [result.rule.id for result in report.results if result.status == "sound"]
