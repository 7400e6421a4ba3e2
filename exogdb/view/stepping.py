"""Where `exo-syscall next`, `finish` and `step` came to."""

from dataclasses import dataclass
from typing import Any

from exogdb.abi.argument import ArgumentText
from exogdb.view.hit import render_arguments
from exogdb.view.style import Style
from exogdb.view.table import render_sentence, wrap_painted
from exogdb.view.value import hex64
from exogdb.x86.word import to_signed

__all__ = ["Step", "render_step", "step_to_json"]

_ERRNO_LIMIT = 4095


@dataclass(frozen=True)
class Step:
    """`reached` is `entry`, `handler`, `dispatcher`, `dispatcher return` or `user`.

    It is None if something else stopped the guest; `report` says what. `number` and `arguments` are known at the
    entry, `value` (64 bits) when the call has returned; `named` are those arguments that the call takes.
    `location` is GDB's own line about the place. `doubts` are those of the analysis that says where entry,
    dispatcher and stack are.
    """

    cpu: int
    reached: str | None
    rip: int
    location: str
    number: int | None = None
    name: str = ""
    arguments: tuple[int, ...] = ()
    named: tuple[ArgumentText, ...] = ()
    value: int | None = None
    report: str = ""
    doubts: tuple[str, ...] = ()


def render_step(step: Step, style: Style) -> str:
    """One line about the call, then GDB's line about the place, then what the analysis is not sure of."""
    match step.reached:
        case "entry":
            head = f"enters {_call(step, style)}"
        case "handler":
            head = f"is in the handler of {_call(step, style)}"
        case "dispatcher":
            head = f"is in the dispatcher with {_call(step, style)}, whose handler is not known"
        case "dispatcher return":
            head = f"did not come by the handler of {_call(step, style)}: the dispatcher has returned"
        case "user":
            head = f"is back in user space: {_value(step.value)}"
        case _:
            head = f"was stopped on the way: {step.report}"
    lines = [wrap_painted(f"CPU {step.cpu} {head}", style, "      "), step.location.strip()]
    return "\n".join([*lines, *(render_sentence(f"not sure: {doubt}", style, "warning") for doubt in step.doubts)])


def _call(step: Step, style: Style) -> str:
    name = style.paint("symbol", step.name) if step.name else "unknown"
    return f"system call {step.number} {name}({render_arguments(step.named)})"


def _value(value: int | None) -> str:
    """The result, and what it is as a signed number if that is how a kernel reports errors."""
    if value is None:
        return "no value"
    signed = to_signed(value)
    return f"the call returned {signed}" if abs(signed) <= _ERRNO_LIMIT else f"the call returned {hex64(value)}"


def step_to_json(step: Step) -> dict[str, Any]:
    """The fields of `Step` but its location, 64-bit values in hex; null: not known there."""
    return {
        "cpu": step.cpu,
        "reached": step.reached,
        "rip": hex64(step.rip),
        "number": step.number,
        "name": step.name or None,
        "args": [hex64(argument) for argument in step.arguments],
        "value": None if step.value is None else hex64(step.value),
        "report": step.report or None,
        "doubts": list(step.doubts),
    }
