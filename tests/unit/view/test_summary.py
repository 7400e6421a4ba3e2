"""exogdb/view/summary.py: the table and the histogram."""

from exogdb.trace.call import Call, CallState
from exogdb.trace.summary import Summary
from exogdb.view.style import PLAIN
from exogdb.view.summary import render_summary, summary_to_json


def _summary() -> Summary:
    summary = Summary()
    for latency, result in ((300, 7), (600, 7), (700, (1 << 64) - 1)):
        summary.add(Call(1, 0, 0x1000, 1, 4, entry_ns=0, exit_ns=latency, result=result, state=CallState.RETURNED))
    summary.add(Call(2, 0, 0x1000, 1, 102))
    return summary


def _name(number: int | None) -> str:
    return {4: "getpid", 102: "ipc_recv"}[number or 0]


def test_the_table() -> None:
    lines = render_summary(_summary(), _name, "host clock", PLAIN, histograms=False).splitlines()
    assert lines[0].split() == [
        "calls",
        "share",
        "errors",
        "open",
        "min",
        "median",
        "p99",
        "max",
        "system",
        "call",
    ]
    assert lines[1].split() == [
        "3",
        "75.0%",
        "1",
        "0",
        "300",
        "ns",
        "600",
        "ns",
        "700",
        "ns",
        "700",
        "ns",
        "getpid",
    ]
    assert lines[2].split() == ["1", "25.0%", "0", "1", "-", "-", "-", "-", "ipc_recv"]
    assert lines[3] == "4 calls; times: host clock"


def test_each_call_with_times_has_a_histogram() -> None:
    text = render_summary(_summary(), _name, "host clock", PLAIN)
    assert text.count("|") == 4
    assert "getpid\n  256 ns |" in text


def test_nothing_is_said_to_be_nothing() -> None:
    assert render_summary(Summary(), _name, "host clock", PLAIN) == "no system call was made in that time"


def test_that_only_returns_were_seen_is_not_nothing() -> None:
    summary = Summary()
    summary.add(Call(0, 0, 0x1000, 1, state=CallState.ENTERED_BEFORE, result=3))
    assert render_summary(summary, _name, "host clock", PLAIN).splitlines() == [
        "no system call was entered in that time",
        "1 return of calls entered before the trace, or of forks' children, not counted",
    ]


def test_that_no_call_was_chosen_is_not_nothing() -> None:
    text = render_summary(Summary(), _name, "host clock", PLAIN, entered=1200)
    assert text == "of 1,200 system calls made in that time none was chosen"


def test_json_has_null_where_there_is_no_time() -> None:
    first, second = summary_to_json(_summary(), _name, "host clock")["syscalls"]
    assert first["latency_ns"]["median"] == 600
    assert first["histogram"] == [{"from_ns": 256, "count": 1}, {"from_ns": 512, "count": 2}]
    assert (second["name"], second["latency_ns"]) == ("ipc_recv", None)
