"""A table that fits the terminal: the columns that may become narrower are wrapped, the others stay whole."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import TextWrapper

from exogdb.view.style import Style

__all__ = ["KEPT_BLANK", "Cell", "render_sentence", "render_table", "table_width", "wrap_painted"]

KEPT_BLANK = "\N{NO-BREAK SPACE}"  # in a cell: a blank at which its line is not broken


class _Wrapper(TextWrapper):
    """Breaks at blanks and, where a symbol is too long, behind `::` and in front of an offset."""

    wordsep_simple_re = re.compile(r"([ \t\n]+|(?<=::)(?=\w)|(?<=\w)(?=\+\d))")


_SGR = re.compile(r"\x1b\[[0-9;]*m")
_GAP = 2  # columns between two columns, as tabulate's "plain" has it


@dataclass(frozen=True)
class Cell:
    """Text of one line, and the colour role that `Style.paint` gives it; no role is no colour."""

    text: str
    role: str = ""


def table_width(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
    """How many columns of the terminal the table takes if nothing is wrapped."""
    widths = _natural_widths(headings, rows)
    return sum(widths) + _GAP * (len(widths) - 1)


def render_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    style: Style,
    narrow: Mapping[int, int] | None = None,
    numbers: Sequence[int] = (),
) -> str:
    """The table. `narrow` maps the columns that may be wrapped to their least width, to be tried in this order.

    `numbers` are the columns that are aligned at the right. A table that does not fit even so is left too wide.
    """
    from tabulate import tabulate

    widths = _fit(_natural_widths(headings, rows), style.width, narrow or {})
    painted = [[style.paint("heading", heading) for heading in headings]]
    painted += [[_paint(cell, width, style) for cell, width in zip(row, widths, strict=True)] for row in rows]
    align = ["right" if column in numbers else "left" for column in range(len(headings))]
    text = tabulate(painted, tablefmt="plain", disable_numparse=True, colalign=align)
    return "\n".join(line.rstrip() for line in text.splitlines())


def render_sentence(text: str, style: Style, role: str = "") -> str:
    """`text` broken between words so that it fits the terminal."""
    return _paint(Cell(text, role), style.width or len(text) or 1, style)


def wrap_painted(text: str, style: Style, indent: str) -> str:
    """A line with colours in it, broken at blanks so that it fits the terminal; further lines begin with `indent`.

    >>> wrap_painted("Breakpoint 1 on system call 101", Style(width=16), "    ")
    'Breakpoint 1 on\\n    system call\\n    101'
    """
    if not style.width or _visible(text) <= style.width:
        return text
    start = len(text) - len(text.lstrip(" "))
    first, *words = text[start:].split(" ")
    lines = [text[:start] + first]
    for word in words:
        if _visible(lines[-1]) + 1 + _visible(word) <= style.width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return "\n".join(lines)


def _visible(text: str) -> int:
    return len(_SGR.sub("", text))


def _natural_widths(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    columns = zip(headings, *([cell.text for cell in row] for row in rows), strict=True)
    return [max(map(len, column)) for column in columns]


def _fit(widths: list[int], limit: int, narrow: Mapping[int, int]) -> list[int]:
    """`widths` with the columns of `narrow` made smaller until the table takes `limit` columns (0: any number)."""
    fitted = list(widths)
    for column, least in narrow.items():
        excess = sum(fitted) + _GAP * (len(fitted) - 1) - limit
        if limit and excess > 0:
            fitted[column] = min(fitted[column], max(least, fitted[column] - excess))
    return fitted


def _paint(cell: Cell, width: int, style: Style) -> str:
    lines = _Wrapper(width, break_on_hyphens=False).wrap(cell.text) if len(cell.text) > width else [cell.text]
    lines = [line.replace(KEPT_BLANK, " ") for line in lines]
    return "\n".join(style.paint(cell.role, line) if cell.role else line for line in lines)
