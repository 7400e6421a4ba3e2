"""The TSS: the stacks that the CPU switches to by itself, and whether they can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.view.style import Style
from exogdb.view.table import Cell, render_table
from exogdb.view.value import hex64

__all__ = ["StackRow", "TssReport", "render_tss", "tss_to_json"]


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
        """Whether an I/O permission map lies inside the limit; without one CPL 3 may use no port (IOPL aside)."""
        return self.iomap_base <= self.limit


def _users(stack: StackRow) -> str:
    """The vectors in one line, those that the manual reserves as a number of them."""
    named = [name for name in stack.used_by if name != "reserved"]
    reserved = len(stack.used_by) - len(named)
    return " ".join([*named, f"(and {reserved} reserved)"] if reserved else named)


def _row(stack: StackRow) -> list[Cell]:
    unused = not stack.used_by and not stack.address
    state = "not set" if not stack.address else "mapped, writable" if not stack.problem else stack.problem
    role = "faint" if unused else "bad" if stack.problem else "good"
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
    return f"{style.paint('heading', head)}\n{table}\nI/O permission map: {inside}"


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
