"""Where breakpoints on system calls are, and what they cost, as text and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.abi.dispatch.place import Cost, Place, PlaceKind
from exogdb.abi.dispatch.route import UNKNOWN
from exogdb.abi.stub.location import describe_location
from exogdb.view.style import Style
from exogdb.view.table import render_sentence, wrap_painted
from exogdb.view.value import hex64

__all__ = [
    "BreakpointReport",
    "PlaceLine",
    "breakpoint_to_json",
    "cost_role",
    "describe_place",
    "place_to_json",
    "render_breakpoint",
]

_MOST_LINES = 20
_CONTINUED = "      "


@dataclass(frozen=True)
class PlaceLine:
    """One number's place; `symbol` is what `address` is called, empty if nothing is known."""

    name: str
    place: Place
    symbol: str


@dataclass(frozen=True)
class BreakpointReport:
    """What `exo-syscall break` made. `places` is empty while it is pending; `doubts` are about the entry path."""

    number: int
    temporary: bool
    choice: str
    places: Sequence[PlaceLine]
    doubts: Sequence[str] = ()


def render_breakpoint(report: BreakpointReport, style: Style, *, explain: bool) -> str:
    """One entry for one system call, one more for each if there are several; the reasons if asked for; doubts."""
    lines = [wrap_painted(line, style, _CONTINUED) for line in _describe_report(report, style, explain=explain)]
    return "\n".join(
        [*lines, *(render_sentence(f"not sure: {doubt}", style, "warning") for doubt in report.doubts)]
    )


def _describe_report(report: BreakpointReport, style: Style, *, explain: bool) -> list[str]:
    title = f"{'Temporary breakpoint' if report.temporary else 'Breakpoint'} {report.number}"
    if not report.places:
        return [f"{title} on {report.choice}: pending, it is placed when the kernel handles its first system call"]
    if len(report.places) == 1:
        lines = [f"{title} on {_describe(report.places[0], style)}"]
        return lines + (_explain(report.places[0], style) if explain else [])
    lines = [f"{title} on {report.choice}: {len(report.places)} kinds of call, {_summarize(report.places)}"]
    for number, line in enumerate(report.places):
        if explain or number < _MOST_LINES:
            lines.append(f"  {_describe(line, style)}")
            lines += [f"  {reason}" for reason in _explain(line, style)] if explain else []
    return lines


def breakpoint_to_json(report: BreakpointReport) -> dict[str, Any]:
    """The breakpoint's number, and a place for each system call."""
    return {
        "breakpoint": report.number,
        "choice": report.choice,
        "temporary": report.temporary,
        "pending": not report.places,
        "doubts": list(report.doubts),
        "places": [place_to_json(line) for line in report.places],
    }


def place_to_json(line: PlaceLine) -> dict[str, Any]:
    """One place; `number` is null for the numbers that the table lacks."""
    place = line.place
    return {
        "number": None if place.number == UNKNOWN else place.number,
        "name": line.name,
        "kind": place.kind.value,
        "address": hex64(place.address),
        "symbol": line.symbol or None,
        "cost": place.cost.value,
        "shared_with": sorted(number for number in place.numbers if number not in (UNKNOWN, place.number)),
        "table_entry": hex64(place.entry.address) if place.entry is not None else None,
        "reasons": list(place.reasons),
    }


def describe_place(line: PlaceLine, style: Style) -> str:
    """Address, symbol and how it is watched, without the cost."""
    where = style.paint("address", hex64(line.place.address))
    symbol = f" ({style.paint('symbol', line.symbol)})" if line.symbol else ""
    match line.place.kind:
        case PlaceKind.TABLE_ENTRY if line.place.entry is not None:
            return f"{where}{symbol} after a read of table entry {hex64(line.place.entry.address)}"
        case PlaceKind.DISPATCHER:
            return f"{where}{symbol} by comparing the number"
        case PlaceKind.BEHIND_DISPATCHER:
            return f"{where}{symbol} after a stop at the dispatcher"
        case _:
            return f"{where}{symbol}"


def cost_role(cost: Cost) -> str:
    """The colour that says how much it is."""
    return {Cost.FREE: "good", Cost.WATCHED_TABLE: "good", Cost.STOP_PER_CALL: "bad"}.get(cost, "warning")


def _describe(line: PlaceLine, style: Style) -> str:
    return f"{_title(line)} at {describe_place(line, style)}: {_paint_cost(line.place.cost, style)}"


def _paint_cost(cost: Cost, style: Style) -> str:
    return style.paint(cost_role(cost), cost.value)


def _title(line: PlaceLine) -> str:
    if line.place.number == UNKNOWN:
        return "unknown system calls"
    return f"system call {line.place.number}" + (f" ({line.name})" if line.name != str(line.place.number) else "")


def _explain(line: PlaceLine, style: Style) -> list[str]:
    reasons = (*line.place.reasons, *_describe_proofs(line.place))
    return [style.paint("faint", f"  - {reason}") for reason in reasons]


def _describe_proofs(place: Place) -> list[str]:
    """What a stop at `place` is checked by, one sentence each."""
    if place.kind is PlaceKind.BEHIND_DISPATCHER:
        return ["the number is read at the dispatcher, and the call is known here by where it returns to"]
    proofs = []
    if place.number_at is not None:
        proofs.append(f"at each stop the number is read from {describe_location(place.number_at)}")
    if place.entry is not None:
        proofs.append("that entry is watched, tells the number, and has the address set for the call that read it")
    if place.held_at is not None:
        where = describe_location(place.held_at)
        proofs.append(f"at each stop the number that the dispatcher keeps in {where} is compared")
    if place.is_number_saved:
        proofs.append("at each stop the number that the entry stub saved is compared")
    if place.caller_slot is not None:
        proofs.append("at each stop the return address must be the dispatcher's, not another caller's")
    if not (place.number_at or place.entry or place.is_number_saved or place.held_at):
        proofs.append("nothing is known to keep the number here: that no other number comes by is the proof")
    return proofs


def _summarize(places: Iterable[PlaceLine]) -> str:
    costs = [line.place.cost for line in places]
    return ", ".join(f"{costs.count(cost)} {cost.value}" for cost in Cost if cost in costs)
