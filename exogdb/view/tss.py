"""The TSS: the stacks that the CPU switches to by itself, and whether they can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table
from exogdb.view.value import hex64
from exogdb.x86.tss import TSS_SIZE

__all__ = ["StackRow", "TssReport", "render_tss", "tss_to_json"]

LEAST_LIMIT = TSS_SIZE - 1


@dataclass(frozen=True)
class StackRow:
    """One stack pointer. `problem` says why a push to it would fail, empty if it would not; `used_by` are
    vectors.
    """

    name: str
    address: int
    symbol: str
    problem: str
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class TssReport:
    """The TSS of one CPU; `limit` is its size in bytes less one, `iomap_base` an offset in bytes."""

    cpu: int
    selector: int
    base: int
    limit: int
    stacks: Sequence[StackRow]
    iomap_base: int

    @property
    def has_iomap(self) -> bool:
        """Whether an I/O permission map lies inside the limit; without one CPL 3 may use no port (IOPL aside).

        Source: Intel SDM Vol. 1, I/O Permission Bit Map: a base at or above the limit means that there is none.
        """
        return self.iomap_base < self.limit


def _users(stack: StackRow) -> str:
    """The vectors in one line: interrupts as ranges, those that the manual reserves as a number of them."""
    named = [name for name in stack.used_by if name != "reserved" and not name.startswith("0x")]
    numbers = [int(name, 16) for name in stack.used_by if name.startswith("0x")]
    reserved = stack.used_by.count("reserved")
    return " ".join([*named, *_ranges(numbers), *([f"(and {reserved} reserved)"] if reserved else [])])


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers with neighbours put together.

    >>> _ranges([0x20, 0x21, 0x22, 0x30])
    ['0x20-0x22', '0x30']
    """
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return [f"{first:#x}" if first == last else f"{first:#x}-{last:#x}" for first, last in ranges]


def _row(stack: StackRow) -> list[Cell]:
    state = "not set" if not stack.address else "mapped, writable" if not stack.problem else stack.problem
    role = "faint" if not stack.used_by else "bad" if stack.problem or not stack.address else "good"
    address = Cell(f"{stack.address:#018x}")
    return [Cell(stack.name, "name"), address, Cell(state, role), Cell(_users(stack)), Cell(stack.symbol)]


def render_tss(report: TssReport, style: Style) -> str:
    """Every stack with its state and the vectors that switch to it; to RSP0 only if they arrive at CPL 3."""
    head = f"CPU {report.cpu}  TSS {report.selector:#04x} at {report.base:#x}, limit {report.limit:#x}"
    rows = [_row(stack) for stack in report.stacks]
    table = render_table(("stack", "address", "state", "used by", "symbol"), rows, style, {3: 24, 2: 16, 4: 12})
    inside = (
        f"at offset {report.iomap_base:#x}" if report.has_iomap else "none: CPL 3 may use no port unless IOPL is 3"
    )
    short = f"! limit {report.limit:#x} is below {LEAST_LIMIT:#x}: #TS where the CPU needs what lies beyond"
    damage = [] if report.limit >= LEAST_LIMIT else [render_sentence(short, style, "bad")]
    return "\n".join([style.paint("heading", head), table, f"I/O permission map: {inside}", *damage])


def _stack_to_json(stack: StackRow) -> dict[str, Any]:
    return {
        "name": stack.name,
        "address": hex64(stack.address),
        "symbol": stack.symbol,
        "usable": bool(stack.address) and not stack.problem,
        "problem": stack.problem,
        "used_by": list(stack.used_by),
    }


def tss_to_json(report: TssReport) -> dict[str, Any]:
    """`{"cpu", "selector", "base", "limit", "stacks": [{"name", "address", "usable", ...}], "iomap_base"}`."""
    return {
        "cpu": report.cpu,
        "selector": hex64(report.selector),
        "base": hex64(report.base),
        "limit": hex64(report.limit),
        "stacks": [_stack_to_json(stack) for stack in report.stacks],
        "iomap_base": hex64(report.iomap_base),
    }
