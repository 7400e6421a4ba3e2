"""A recorded trace as one HTML page that needs no network and no server.

The page holds its own style, script and data. The data is one JSON object in columns, small enough for hundreds of
thousands of calls; names and texts that repeat are stored once and referred to by index. Counting, filtering and
drawing is the script's work (`assets/*.js`), so that everything on the page follows the filter.

The page's Content-Security-Policy names the hashes of that style and that script: nothing else can run or be
loaded, whatever text a guest put into the trace.
"""

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exogdb.trace.call import Call
from exogdb.trace.ipc import Message, find_message
from exogdb.trace.record import RecordReader, Shown

__all__ = ["render_report", "report_to_json"]

_ASSETS = Path(__file__).parent / "assets"
# In this order: each part of the script uses only what stands before it, but for functions called later.
_SCRIPTS = ("model", "filter", "page", "lanes", "timeline", "moves", "summary", "messages", "calls", "start")
_COLUMNS = (
    *("seq", "cpu", "process", "program", "name", "entry", "exit", "state"),
    *("args", "result", "failed", "return_cpu", "guess", "channel"),
    *("parent", "parent_guess"),
)


def render_report(reader: RecordReader) -> str:
    """The whole page. Reads the trace to its end.

    :raise FormatError: a line in the middle of the trace cannot be read.
    """
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = "".join((_ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {
        "@POLICY@": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "@STYLE@": style,
        "@SCRIPT@": script,
        "@DATA@": _embed(report_to_json(reader)),
    }
    page = (_ASSETS / "report.html").read_text(encoding="utf-8")
    for mark, text in parts.items():
        before, after = page.split(mark)
        page = f"{before}{text}{after}"
    return page


def report_to_json(reader: RecordReader) -> dict[str, Any]:
    """What the page's script works on. Times are nanoseconds since the first one in the trace."""
    rows = _Rows()
    for call, shown in reader:
        rows.add(call, shown)
    rows.shift_times()
    return {
        "header": asdict(reader.header),
        "end": reader.end,
        "names": rows.names.values,
        "texts": rows.texts.values,
        "columns": _COLUMNS,
        "calls": list(rows.columns.values()),
    }


class _Index:
    """Gives every distinct value a small number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def find(self, value: Any) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


class _Rows:
    """The columns of the page's table of calls, a call at a time. `names` has pairs of name and number."""

    def __init__(self) -> None:
        self.columns: dict[str, list[int | None]] = {name: [] for name in _COLUMNS}
        self.names, self.texts = _Index(), _Index()
        self._appends = [column.append for column in self.columns.values()]

    def add(self, call: Call, shown: Shown) -> None:
        """One more row. `channel`: the index of the number's text for a message sent, ~index for one received."""
        message = find_message(call, shown.name)
        find = self.texts.find
        row = (
            *(call.sequence, call.cpu, call.process, find(shown.program)),
            self.names.find((shown.name, call.number)),
            *(call.entry_ns, call.exit_ns, find(call.state.value)),
            *(find(", ".join(shown.arguments)), find(shown.result)),
            *(int(call.failed), call.return_cpu, int(call.is_ambiguous)),
            None if message is None else self._channel(message),
            None if call.parent is None else call.parent.process,
            int(call.parent is not None and call.parent.is_guess),
        )
        for append, value in zip(self._appends, row, strict=True):
            append(value)

    def _channel(self, message: Message) -> int:
        # Not the number itself: 64 bits are too many for a number of JavaScript's.
        index = self.texts.find(str(message.channel))
        return index if message.is_send else ~index

    def shift_times(self) -> None:
        """Make the first moment in the trace 0."""
        times = (self.columns["entry"], self.columns["exit"])
        origin = min((value for column in times for value in column if value is not None), default=0)
        for column in times:
            column[:] = [None if value is None else value - origin for value in column]


def _hash(text: str) -> str:
    """The source expression that lets exactly `text` stand inline (CSP level 3, 2.3.1)."""
    # The element's text begins and ends with the line breaks of report.html.
    digest = hashlib.sha256(f"\n{text}\n".encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embed(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever text a guest put into it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
