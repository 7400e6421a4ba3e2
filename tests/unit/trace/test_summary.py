"""exogdb/trace/summary.py: counts and percentiles against values worked out by hand."""

from exogdb.trace.call import Call, CallState
from exogdb.trace.summary import Summary, histogram


def _call(number: int, result: int | None, latency: int | None = None) -> Call:
    state = CallState.IN_PROGRESS if result is None else CallState.RETURNED
    start = None if latency is None else 1000
    end = None if latency is None else 1000 + latency
    return Call(1, 0, 0x1000, 1, number, entry_ns=start, exit_ns=end, result=result, state=state)


def test_counts_errors_and_open_calls() -> None:
    summary = Summary()
    for call in (_call(4, 7), _call(4, (1 << 64) - 1), _call(4, None), _call(101, 0)):
        summary.add(call)
    first, second = summary.by_count()
    assert (first.number, first.count, first.errors, first.unfinished) == (4, 3, 1, 1)
    assert (second.number, second.count, second.errors) == (101, 1, 0)
    assert summary.total == 4


def test_returns_without_an_entry_are_counted_apart() -> None:
    summary = Summary()
    summary.add(Call(0, 0, 0x1000, 1, state=CallState.ENTERED_BEFORE, result=3))
    summary.add(Call(0, 0, 0x2000, 2, 1, state=CallState.STARTED_BY_FORK, result=0))
    assert (summary.total, summary.unseen) == (0, 2)


def test_latency_of_a_hundred_calls() -> None:
    summary = Summary()
    for nanoseconds in range(1, 101):
        summary.add(_call(4, 0, nanoseconds))
    latency = summary.calls[4].latency()
    assert latency is not None
    assert (latency.minimum_ns, latency.median_ns, latency.p99_ns, latency.maximum_ns) == (1, 50, 99, 100)
    assert (latency.count, latency.total_ns) == (100, 5050)


def test_calls_without_times_have_no_latency() -> None:
    summary = Summary()
    summary.add(_call(4, 0))
    assert summary.calls[4].latency() is None


def test_a_histogram_of_nothing_is_empty() -> None:
    assert histogram([]) == []
