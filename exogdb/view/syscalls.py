"""The table of system calls as text and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.abi.numbers import SyscallNumber
from exogdb.view.plan import PlaceLine, describe_place, paint_cost, place_to_json
from exogdb.view.style import Style

__all__ = ["SyscallList", "SyscallRow", "list_to_json", "render_list"]


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
    """A table of all rows, and a line about where it comes from."""
    from tabulate import tabulate

    headings = ["number", "name", "handler", "group", "breakpoint", "cost", "place"]
    rows = [_to_cells(row, style) for row in listing.rows]
    if listing.no_plan:
        headings, rows = headings[:5], [cells[:5] for cells in rows]
    table = tabulate(rows, [style.paint("heading", text) for text in headings], tablefmt="plain")
    lines = [table, "", f"Numbers from {listing.source}."]
    if listing.no_plan:
        lines.append(f"Places unavailable ({listing.no_plan}).")
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())


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


def _to_cells(row: SyscallRow, style: Style) -> list[str]:
    entry = row.entry
    cells = [str(entry.number), style.paint("name", entry.name), entry.handler, entry.group]
    cells.append(", ".join(map(str, row.breakpoints)))
    if row.line is None:
        return [*cells, "", ""]
    return [*cells, paint_cost(row.line.place.cost, style), describe_place(row.line, style)]
