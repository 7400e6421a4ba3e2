"""A recorded trace as one HTML page that needs no network and no server.

The page holds its own style, script and data. The data is one JSON object in columns, small enough for hundreds of
thousands of calls; names and texts that repeat are stored once and referred to by index.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exogdb.trace.call import Call
from exogdb.trace.ipc import find_conversations
from exogdb.trace.record import Record, Shown
from exogdb.trace.summary import Summary
from exogdb.view.summary import summary_to_json

__all__ = ["render_report", "report_to_json"]

_ASSETS = Path(__file__).parent / "assets"


def render_report(record: Record) -> str:
    """The whole page."""
    page = (_ASSETS / "report.html").read_text(encoding="utf-8")
    parts = {
        "@STYLE@": (_ASSETS / "report.css").read_text(encoding="utf-8"),
        "@SCRIPT@": (_ASSETS / "report.js").read_text(encoding="utf-8"),
        "@DATA@": _embed(report_to_json(record)),
    }
    for mark, text in parts.items():
        before, after = page.split(mark)
        page = f"{before}{text}{after}"
    return page


def report_to_json(record: Record) -> dict[str, Any]:
    """What the page's script works on. Times are nanoseconds since the first one in the trace."""
    origin = min((call.entry_ns for call in record.calls if call.entry_ns is not None), default=0)
    texts, names = _Index(), _Index()
    rows = [
        _row(call, shown, origin, names, texts) for call, shown in zip(record.calls, record.shown, strict=True)
    ]
    return {
        "header": asdict(record.header),
        "end": record.end,
        "complete": record.is_complete,
        "names": names.values,
        "texts": texts.values,
        "columns": _COLUMNS,
        "calls": [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _COLUMNS],
        "programs": {call.process: shown.program for call, shown in zip(record.calls, record.shown, strict=True)},
        "summary": _summarise(record),
        "conversations": [asdict(each) for each in _conversations(record)],
    }


_COLUMNS = ["seq", "cpu", "process", "name", "entry", "exit", "state", "args", "result", "failed", "return_cpu"]


class _Index:
    """Gives every distinct text a small number."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._numbers: dict[str, int] = {}

    def find(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.values)
            self.values.append(text)
        return number


def _row(call: Call, shown: Shown, origin: int, names: _Index, texts: _Index) -> Sequence[int | None]:
    return (
        call.sequence,
        call.cpu,
        call.process,
        names.find(shown.name),
        None if call.entry_ns is None else call.entry_ns - origin,
        None if call.exit_ns is None else call.exit_ns - origin,
        texts.find(call.state.value),
        texts.find(", ".join(shown.arguments)),
        texts.find(shown.result),
        int(call.failed),
        call.return_cpu,
    )


def _summarise(record: Record) -> dict[str, Any]:
    summary = Summary()
    name_of_number: dict[int | None, str] = {}
    for call, shown in zip(record.calls, record.shown, strict=True):
        summary.add(call)
        name_of_number[call.number] = shown.name
    return summary_to_json(summary, lambda number: name_of_number[number], record.header.clock)


def _conversations(record: Record) -> Iterable[Any]:
    names = {id(call): shown.name for call, shown in zip(record.calls, record.shown, strict=True)}
    return find_conversations(record.calls, lambda call: names[id(call)])


def _embed(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever text a guest put into it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
