"""The first instructions behind IA32_LSTAR, with their source lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.view.style import Style
from exogdb.view.table import render_sentence
from exogdb.view.value import TOUCHED, hex64

__all__ = ["CodeLine", "LstarReport", "lstar_to_json", "render_lstar"]


@dataclass(frozen=True)
class CodeLine:
    """One instruction. `place` is `symbol+offset`; `source` is `file:line`, `text_of_source` that line; both
    may be ''.
    """

    address: int
    place: str
    text: str
    source: str
    text_of_source: str


@dataclass(frozen=True)
class LstarReport:
    """IA32_LSTAR of one CPU, the code there, and what is wrong (`findings`)."""

    cpu: int
    value: int
    source: str
    code: Sequence[CodeLine]
    findings: Sequence[str]


_BLANKS = re.compile(r"\s{2,}")  # what puts comments below each other in the file


def _fit(line: str, style: Style) -> str:
    """A line of source that is too long for the terminal is cut: it stands there to be recognised."""
    line = line.rstrip()
    return f"{line[: style.width - 3]}..." if style.width and len(line) > style.width else line


def _highlight(text: str, style: Style) -> str:
    if not style.colour:
        return text
    from pygments import highlight
    from pygments.formatters import TerminalFormatter
    from pygments.lexers import NasmLexer

    return highlight(text, NasmLexer(), TerminalFormatter()).rstrip("\n")


def render_lstar(report: LstarReport, style: Style) -> str:
    """The source line in front of the instructions it became, as a disassembler with source shows it."""
    symbol = f"  {style.paint('symbol', report.code[0].place)}" if report.code and report.code[0].place else ""
    lines = [
        style.paint("heading", f"CPU {report.cpu}  IA32_LSTAR {report.value:#018x}  ({report.source})") + symbol
    ]
    last = ""
    for code in report.code:
        if code.source and code.source != last:
            lines.append(
                style.paint("faint", _fit(f"{code.source}  {_BLANKS.sub('  ', code.text_of_source)}", style))
            )
            last = code.source
        lines.append(f"  {style.paint('address', f'{code.address:#018x}')}  {_highlight(code.text, style)}")
    lines += [render_sentence(f"! {text}", style, "bad") for text in report.findings]
    lines += [render_sentence(TOUCHED, style, "warning")] if report.source == "rdmsr" else []
    return "\n".join(lines)


def lstar_to_json(report: LstarReport) -> dict[str, Any]:
    """`{"cpu", "value", "source", "code": [{"address", "place", "text", "source"}], "findings"}`."""
    return {
        "cpu": report.cpu,
        "value": hex64(report.value),
        "source": report.source,
        "code": [
            {"address": hex64(code.address), "place": code.place, "text": code.text, "source": code.source}
            for code in report.code
        ],
        "findings": list(report.findings),
    }
