"""What a trace comes to: per system call how often, how often in error, and how long.

Latencies are kept as they are, so that percentiles are exact; one number costs eight bytes of memory a call. A
latency of 0 means that the clock was too coarse for it: entry and return were read at the same instant.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from exogdb.trace.call import Call, CallState

__all__ = ["CallSummary", "Latency", "Summary", "histogram", "percentile"]


@dataclass(frozen=True)
class Latency:
    """Nanoseconds from entry to return, over all calls of one number whose two times are known."""

    count: int
    total_ns: int
    minimum_ns: int
    median_ns: int
    p99_ns: int
    maximum_ns: int


@dataclass
class CallSummary:
    """One number's share of a trace. `unfinished` counts calls that had not returned by the end."""

    number: int | None
    count: int = 0
    errors: int = 0
    unfinished: int = 0
    latencies_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def latency(self) -> Latency | None:
        """The distribution, or None when no call had both times."""
        if not self.latencies_ns:
            return None
        ordered = sorted(self.latencies_ns)
        return Latency(
            len(ordered),
            sum(ordered),
            ordered[0],
            percentile(ordered, 50),
            percentile(ordered, 99),
            ordered[-1],
        )


@dataclass
class Summary:
    """Counts calls as they complete. Returns whose entry was not seen are counted apart, in `unseen`."""

    calls: dict[int | None, CallSummary] = field(default_factory=dict)
    unseen: int = 0

    def add(self, call: Call) -> None:
        """Count a call that is complete, or still open at the end of the trace."""
        if call.state in (CallState.ENTERED_BEFORE, CallState.STARTED_BY_FORK):
            self.unseen += 1
            return
        entry = self.calls.setdefault(call.number, CallSummary(call.number))
        entry.count += 1
        entry.errors += call.failed
        entry.unfinished += call.state is CallState.IN_PROGRESS
        latency = call.latency_ns
        if latency is not None:
            entry.latencies_ns.append(latency)

    @property
    def total(self) -> int:
        """Calls counted, without those whose entry was not seen."""
        return sum(entry.count for entry in self.calls.values())

    def by_count(self) -> list[CallSummary]:
        """The most frequent first; equal counts by number."""
        return sorted(self.calls.values(), key=lambda entry: (-entry.count, entry.number or 0))


def percentile(ordered: list[int], percent: int) -> int:
    """The smallest value that at least `percent` per cent of the values do not exceed (nearest rank).

    >>> percentile([10, 20, 30, 40], 50), percentile([10, 20, 30, 40], 99)
    (20, 40)
    """
    rank = max(1, -(-percent * len(ordered) // 100))
    return ordered[rank - 1]


def histogram(values_ns: Iterable[int]) -> list[tuple[int, int]]:
    """Counts per power of two: `(lower bound, count)`, without gaps between the first and the last bucket.

    Zeros, which are no measurements, have a bucket of their own in front.

    >>> histogram([0, 3, 5, 6, 17])
    [(0, 1), (2, 1), (4, 2), (8, 0), (16, 1)]
    """
    zeros, counts = 0, dict[int, int]()
    for value in values_ns:
        if value <= 0:
            zeros += 1
            continue
        exponent = value.bit_length() - 1
        counts[exponent] = counts.get(exponent, 0) + 1
    measured = range(min(counts), max(counts) + 1) if counts else ()
    buckets = [(1 << exponent, counts.get(exponent, 0)) for exponent in measured]
    return [(0, zeros), *buckets] if zeros else buckets
