"""A summary as a table, the busiest system call first, with histograms of their latencies.

::

      calls   share  errors  open     min  median     p99     max  system call
      1,204   54.1%       0     1   11 us   14 us   80 us  1.2 ms  ipc_send

Times are on the clock that the trace names. `short` is a time below that clock's resolution: the log's records
carry no time, so that a call whose entry and return were read together has no measurable length.
"""

from collections.abc import Callable, Iterator
from typing import Any

from exogdb.trace.summary import CallSummary, Summary, histogram
from exogdb.trace.unit import Unit
from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table

__all__ = ["render_histogram", "render_summary", "summary_to_json"]

_BAR_WIDTH = 40
_MOST_HISTOGRAMS = 5
_NARROWEST_NAME = 8
_HEADINGS = ("calls", "share", "errors", "open", "min", "median", "p99", "max", "system call")


def render_summary(
    summary: Summary,
    name_of: Callable[[int | None], str],
    clock: str,
    style: Style,
    unit: Unit = Unit.NANOSECONDS,
    *,
    histograms: bool = True,
    entered: int = 0,
) -> str:
    """The table, then histograms of the five busiest calls whose latency is known. `clock` counts in `unit`.

    `entered` is how many calls were made, chosen or not.
    """
    if not summary.total:
        return "\n".join(render_sentence(text, style) for text in _describe_nothing(summary, entered))
    rows = [_row(entry, summary.total, name_of, unit) for entry in summary.by_count()]
    parts = [render_table(_HEADINGS, rows, style, {len(_HEADINGS) - 1: _NARROWEST_NAME}, range(8))]
    parts += [render_sentence(text, style) for text in _describe(summary, clock)]
    if histograms:
        parts += [
            f"\n{style.paint('heading', name_of(entry.number))}\n{render_histogram(entry, unit)}"
            for entry in summary.by_count()[:_MOST_HISTOGRAMS]
            if any(entry.latencies_ns)
        ]
    return "\n".join(parts)


def _describe(summary: Summary, clock: str) -> Iterator[str]:
    yield f"{summary.total:,} call{'s' * (summary.total != 1)}; times: {clock}"
    yield from _describe_unseen(summary)
    if any(0 in entry.latencies_ns for entry in summary.calls.values()):
        yield "short: entry and return were read together, so that this clock cannot tell how long it took"


def _describe_nothing(summary: Summary, entered: int) -> Iterator[str]:
    if entered:
        yield f"of {entered:,} system call{'s' * (entered != 1)} made in that time none was chosen"
    else:
        yield f"no system call was {'entered' if summary.unseen else 'made'} in that time"
    yield from _describe_unseen(summary)


def _describe_unseen(summary: Summary) -> Iterator[str]:
    if summary.unseen:
        returns = f"{summary.unseen:,} return{'s' * (summary.unseen != 1)}"
        yield f"{returns} of calls entered before the trace, or of forks' children, not counted"


def render_histogram(entry: CallSummary, unit: Unit = Unit.NANOSECONDS) -> str:
    """Counts per power of two of the latency, as bars.

    >>> entry = CallSummary(4)
    >>> entry.latencies_ns.extend([300, 600, 700])
    >>> print(render_histogram(entry))
      256 ns |####################                    | 1
      512 ns |########################################| 2
    """
    buckets = histogram(entry.latencies_ns)
    largest = max((count for _, count in buckets), default=0)
    return "\n".join(
        f"{unit.format(low):>8} |{'#' * -(-count * _BAR_WIDTH // largest):<{_BAR_WIDTH}}| {count:,}"
        for low, count in buckets
    )


def summary_to_json(
    summary: Summary, name_of: Callable[[int | None], str], clock: str, unit: Unit = Unit.NANOSECONDS
) -> dict[str, Any]:
    """The same as one object; `latency_ns`, in `unit`, is null where no call had both times."""
    return {
        "clock": clock,
        "unit": unit.value,
        "calls": summary.total,
        "unseen": summary.unseen,
        "syscalls": [_entry_to_json(entry, summary.total, name_of) for entry in summary.by_count()],
    }


def _row(entry: CallSummary, total: int, name_of: Callable[[int | None], str], unit: Unit) -> list[Cell]:
    latency = entry.latency()
    times = ["-"] * 4
    if latency is not None:
        spread = (latency.minimum_ns, latency.median_ns, latency.p99_ns, latency.maximum_ns)
        times = [unit.format(value) for value in spread]
    return [
        Cell(f"{entry.count:,}"),
        Cell(f"{entry.count / total:.1%}"),
        Cell(f"{entry.errors:,}", "bad" if entry.errors else ""),
        Cell(f"{entry.unfinished:,}"),
        *map(Cell, times),
        Cell(name_of(entry.number), "name"),
    ]


def _entry_to_json(entry: CallSummary, total: int, name_of: Callable[[int | None], str]) -> dict[str, Any]:
    latency = entry.latency()
    return {
        "number": entry.number,
        "name": name_of(entry.number),
        "count": entry.count,
        "share": entry.count / total,
        "errors": entry.errors,
        "unfinished": entry.unfinished,
        "latency_ns": None
        if latency is None
        else {
            "count": latency.count,
            "total": latency.total_ns,
            "min": latency.minimum_ns,
            "median": latency.median_ns,
            "p99": latency.p99_ns,
            "max": latency.maximum_ns,
        },
        "histogram": [{"from_ns": low, "count": count} for low, count in histogram(entry.latencies_ns)],
    }
