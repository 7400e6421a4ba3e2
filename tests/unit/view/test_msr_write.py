"""Before, written, after."""

from exogdb.reading import Reading, Unavailable
from exogdb.view.msr_write import MsrChange, change_to_json, render_change
from exogdb.view.style import PLAIN
from exogdb.x86.msr import parse_msr

EFER = parse_msr("efer")


def test_a_value_that_was_kept() -> None:
    change = MsrChange(EFER, 1, 0xD01, Reading(0xD00, "rdmsr"), Reading(0xD01, "rdmsr"))
    assert "does not hold" not in render_change(change, PLAIN)
    assert change_to_json(change) == {
        "cpu": 1,
        "msr": "IA32_EFER",
        "before": {"value": "0xd00", "source": "rdmsr"},
        "written": "0xd01",
        "after": {"value": "0xd01", "source": "rdmsr"},
    }


def test_nothing_is_claimed_of_a_cpu_that_cannot_be_asked() -> None:
    change = MsrChange(EFER, 0, 0xD01, Reading(0xD01, "rdmsr"), Unavailable("halted"))
    assert "does not hold" not in render_change(change, PLAIN)
    assert "unavailable (halted)" in render_change(change, PLAIN)


def test_a_value_that_the_cpu_changed_is_said() -> None:
    change = MsrChange(EFER, 0, 0xFFFF, Reading(0xD01, "rdmsr"), Reading(0xD01, "rdmsr"))
    assert "The CPU does not hold what was written" in render_change(change, PLAIN)
