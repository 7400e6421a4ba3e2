"""The table of system calls as text and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from exogdb.abi.numbers import SyscallNumber
from exogdb.view.plan import PlaceLine, cost_role, describe_place, place_to_json
from exogdb.view.style import PLAIN, Style
from exogdb.view.table import Cell, render_sentence, render_table, table_width

__all__ = ["SyscallList", "SyscallRow", "list_to_json", "render_list"]

_T = TypeVar("_T")
_HEADINGS = ("number", "name", "handler", "group", "breakpoint", "cost", "place")
_HANDLER, _COST, _PLACE = 2, 5, 6
_USUAL_HANDLERS = "Each call's handler is called sys_ and its name."
_NO_ROOM = "Where each would stop: `exo-syscall list --json`, or a wider terminal."


@dataclass(frozen=True)
class SyscallRow:
    """One system call, the numbers of the breakpoints that stop at it, and where it would stop."""

    entry: SyscallNumber
    breakpoints: tuple[int, ...]
    line: PlaceLine | None


@dataclass(frozen=True)
class SyscallList:
    """All rows; `source` is where the numbers come from, `no_plan` why there are no places.

    `doubts` are about the entry path that the places depend on.
    """

    rows: Sequence[SyscallRow]
    source: str
    no_plan: str = ""
    doubts: Sequence[str] = ()


def render_list(listing: SyscallList, style: Style) -> str:
    """A table of all rows, and lines about where it comes from.

    A narrow terminal gets no places, and no column of handlers if they are called after their calls.
    """
    headings = list(_HEADINGS[:_COST] if listing.no_plan else _HEADINGS)
    rows = [_to_cells(row)[: len(headings)] for row in listing.rows]
    sentences = [f"Numbers from {listing.source}."]
    if listing.no_plan:
        sentences.append(f"Places unavailable ({listing.no_plan}).")
    elif not _fits(headings, rows, style):
        headings, rows = headings[:_PLACE], [row[:_PLACE] for row in rows]
        sentences.append(_NO_ROOM)
    if not _fits(headings, rows, style) and _are_usual(listing.rows):
        headings, rows = _without(headings, _HANDLER), [_without(row, _HANDLER) for row in rows]
        sentences.append(_USUAL_HANDLERS)
    table = render_table(headings, rows, style, {len(headings) - 1: 16, _HANDLER: 14}, numbers=[0])
    doubts = [render_sentence(f"not sure: {doubt}", style, "warning") for doubt in listing.doubts]
    return "\n".join([table, "", *(render_sentence(sentence, style) for sentence in sentences), *doubts])


def _fits(headings: Sequence[str], rows: Sequence[Sequence[Cell]], style: Style) -> bool:
    return not style.width or table_width(headings, rows) <= style.width


def _are_usual(rows: Sequence[SyscallRow]) -> bool:
    """Whether every handler is called after its call, so that the column says nothing new."""
    return all(row.entry.handler == f"sys_{row.entry.name}" for row in rows)


def _without(columns: Sequence[_T], left_out: int) -> list[_T]:
    return [column for position, column in enumerate(columns) if position != left_out]


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
        "doubts": list(listing.doubts),
    }


def _to_cells(row: SyscallRow) -> list[Cell]:
    entry = row.entry
    cells = [Cell(str(entry.number)), Cell(entry.name, "name"), Cell(entry.handler), Cell(entry.group)]
    cells.append(Cell(", ".join(map(str, row.breakpoints))))
    if row.line is None:
        return [*cells, Cell(""), Cell("")]
    cost = row.line.place.cost
    return [*cells, Cell(cost.value, cost_role(cost)), Cell(describe_place(row.line, PLAIN))]
