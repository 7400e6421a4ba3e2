"""One line about where a step came to."""

import json

import pytest

from exogdb.abi.argument import ArgumentText
from exogdb.view.stepping import Step, render_step, step_to_json
from exogdb.view.style import PLAIN, Style

CALL = {
    "number": 101,
    "name": "ipc_send",
    "arguments": (0x40, 0x7FFF0000, 9, 0, 0, 0),
    "named": (ArgumentText("channel", "64"), ArgumentText("message", "0x7fff0000", '"x"')),
}
SHOWN = 'system call 101 ipc_send(channel=64, message=0x7fff0000 "x")'


@pytest.mark.parametrize(
    ("reached", "line"),
    [
        ("entry", f"CPU 2 enters {SHOWN}"),
        ("handler", f"CPU 2 is in the handler of {SHOWN}"),
        ("dispatcher", f"CPU 2 is in the dispatcher with {SHOWN}, whose handler is not known"),
        ("dispatcher return", f"CPU 2 did not come by the handler of {SHOWN}: the dispatcher has returned"),
    ],
)
def test_a_call_is_shown_with_its_arguments(reached: str, line: str) -> None:
    step = Step(2, reached, 0x1000, "#0  here\n", **CALL)  # type: ignore[arg-type]  # values of several types
    assert render_step(step, Style(width=0)) == f"{line}\n#0  here"
    narrow = render_step(step, Style(width=60)).splitlines()
    assert max(map(len, narrow)) <= 60
    assert " ".join(each.strip() for each in narrow[:-1]) == line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (9, "9"),
        ((1 << 64) - 2, "-2"),
        (0x7FFF12340000, "0x7fff12340000"),
        ((1 << 64) - 5000, "0xffffffffffffec78"),
    ],
)
def test_small_results_are_signed_numbers_and_others_are_hex(value: int, shown: str) -> None:
    step = Step(0, "user", 0x1000, "#0  main ()\n", value=value)
    assert render_step(step, PLAIN) == f"CPU 0 is back in user space: the call returned {shown}\n#0  main ()"


def test_another_stop_is_named_and_has_no_value() -> None:
    step = Step(1, None, 0x1000, "#0  sys_open ()\n", report="breakpoint 1")
    assert render_step(step, PLAIN) == "CPU 1 was stopped on the way: breakpoint 1\n#0  sys_open ()"
    answer = json.loads(json.dumps(step_to_json(step)))
    assert (answer["reached"], answer["report"], answer["value"], answer["number"]) == (
        None,
        "breakpoint 1",
        None,
        None,
    )
