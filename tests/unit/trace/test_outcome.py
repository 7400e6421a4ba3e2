"""exogdb/trace/outcome.py: what is said about a trace that may have lost something."""

import pytest

from exogdb.trace.execlog import LogDamage
from exogdb.trace.outcome import Outcome


@pytest.mark.parametrize("dispatched", [98, 100, 102, None])
def test_each_cpu_may_stand_between_the_entry_and_the_counter(dispatched: int | None) -> None:
    outcome = Outcome(entries=100, cpus=2, dispatched=dispatched, damage=LogDamage())
    assert (outcome.lost, outcome.findings()) == (0, [])


@pytest.mark.parametrize(("dispatched", "lost"), [(97, 1), (110, 8)])
def test_a_larger_difference_is_a_loss(dispatched: int, lost: int) -> None:
    outcome = Outcome(entries=100, cpus=2, dispatched=dispatched)
    assert outcome.lost == lost
    assert outcome.findings() == [f"the kernel dispatched {dispatched} calls and 100 entries were seen"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (LogDamage(announced_only=2), "2 records were announced"),
        (LogDamage(cut_bytes=500), "ends in the middle of a record"),
        (LogDamage(unfiltered=7), "another -dfilter"),
        (LogDamage(foreign_lines=1, first_foreign="int 0x20"), 'such as "int 0x20"'),
        (LogDamage(cpu_unknown=4), "cannot be told which CPU"),
    ],
)
def test_every_damage_has_its_sentence(damage: LogDamage, words: str) -> None:
    (finding,) = Outcome(damage=damage).findings()
    assert words in finding


def test_the_last_line_of_a_record_has_it_all() -> None:
    line = Outcome(
        entries=5, returns=4, shown=3, ambiguous=1, dispatched=5, seconds=1.5, ending="Ctrl-C"
    ).to_json()
    assert (line["calls"], line["entries"], line["returns"], line["lost"]) == (3, 5, 4, 0)
    assert line["problems"] == ["1 returns may be those of other calls; they are marked as guesses"]
