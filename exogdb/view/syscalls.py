"""The table of system calls as text and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.abi.numbers import SyscallNumber
from exogdb.view.plan import PlaceLine, cost_role, describe_place, place_to_json
from exogdb.view.style import PLAIN, Style
from exogdb.view.table import Cell, render_sentence, render_table, table_width

__all__ = ["SyscallList", "SyscallRow", "list_to_json", "render_list"]

_HEADINGS = ("number", "name", "handler", "group", "breakpoint", "cost", "place")
_HANDLER, _COST, _PLACE = 2, 5, 6
_NO_ROOM = "Where each would stop: `exo-syscall list --json`, or a wider terminal."


@dataclass(frozen=True)
class SyscallRow:
    """One system call, the numbers of the breakpoints that stop at it, and where it would stop."""

    entry: SyscallNumber
    breakpoints: tuple[int, ...]
    line: PlaceLine | None


@dataclass(frozen=True)
class SyscallList:
    """All rows; `source` is where the numbers come from, `no_plan` why there are no places."""

    rows: Sequence[SyscallRow]
    source: str
    no_plan: str = ""


def render_list(listing: SyscallList, style: Style) -> str:
    """A table of all rows, and a line about where it comes from. A narrow terminal gets no places."""
    headings = _HEADINGS[:_COST] if listing.no_plan else _HEADINGS
    rows = [_to_cells(row)[: len(headings)] for row in listing.rows]
    is_wide = not style.width or table_width(headings, rows) <= style.width
    if not is_wide:
        headings, rows = headings[:_PLACE], [row[:_PLACE] for row in rows]
    lines = [render_table(headings, rows, style, {_COST: 16, _HANDLER: 14}, numbers=[0]), ""]
    lines.append(render_sentence(f"Numbers from {listing.source}.", style))
    if listing.no_plan:
        lines.append(render_sentence(f"Places unavailable ({listing.no_plan}).", style))
    elif not is_wide:
        lines.append(render_sentence(_NO_ROOM, style))
    return "\n".join(lines)


def list_to_json(listing: SyscallList) -> dict[str, Any]:
    """`{"syscalls": [{"number", "name", "handler", "group", "breakpoints", "plan"}]}`."""
    return {
        "syscalls": [
            {
                "number": row.entry.number,
                "name": row.entry.name,
                "handler": row.entry.handler,
                "group": row.entry.group,
                "constant": row.entry.constant,
                "breakpoints": list(row.breakpoints),
                "plan": place_to_json(row.line) if row.line is not None else {"unavailable": listing.no_plan},
            }
            for row in listing.rows
        ],
        "source": listing.source,
    }


def _to_cells(row: SyscallRow) -> list[Cell]:
    entry = row.entry
    cells = [Cell(str(entry.number)), Cell(entry.name, "name"), Cell(entry.handler), Cell(entry.group)]
    cells.append(Cell(", ".join(map(str, row.breakpoints))))
    if row.line is None:
        return [*cells, Cell(""), Cell("")]
    cost = row.line.place.cost
    return [*cells, Cell(cost.value, cost_role(cost)), Cell(describe_place(row.line, PLAIN))]
