"""exogdb/trace/sink.py: only the chosen calls, and no more than wanted."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from exogdb.trace.call import Call
from exogdb.trace.event import Entry, Return
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.pairing import Pairing
from exogdb.trace.sink import Sink, StoppedCpu
from tests.unit.abi.stub_fixture import StubMemory


def _enter(space: int, number: int) -> Entry:
    return Entry(0, space, 0, None, number, (0, 0, 0, 0, 0, 0), 0x400000, 0x7000, None)


def _leave(space: int) -> Return:
    return Return(0, space, 0, None, 7, None, None, None)


def _run(sink: Sink, *events: Entry | Return) -> None:
    for event in events:
        sink.feed(event)
    sink.finish()


def test_only_the_chosen_numbers_are_passed_on_but_all_are_paired() -> None:
    notices: list[Notice] = []
    sink = Sink(notices.append, choice={101})
    _run(sink, _enter(0x1000, 4), _enter(0x2000, 101), _leave(0x2000), _leave(0x1000), _leave(0x9000))
    assert [(notice.kind, notice.call.number) for notice in notices] == [(NoticeKind.WHOLE, 101)]
    assert (sink.pairing.entries, sink.pairing.returns, sink.shown) == (2, 3, 1)


def test_a_full_sink_still_tells_how_a_call_ended_that_it_has_begun() -> None:
    notices: list[Notice] = []
    sink = Sink(notices.append, most=2)
    other: list[Entry | Return] = [_enter(0x2000, 4), _leave(0x2000)]
    _run(sink, _enter(0x1000, 102), *other, *other, _leave(0x1000), _enter(0x1000, 102))
    assert sink.is_full
    assert [(notice.kind, notice.call.number) for notice in notices] == [
        (NoticeKind.UNFINISHED, 102),
        (NoticeKind.WHOLE, 4),
        (NoticeKind.RESUMED, 102),
    ]
    assert (sink.shown, sink.still_open()) == (2, [])


def test_the_calls_that_are_counted_are_the_first_to_enter_whatever_returns_first() -> None:
    notices: list[Notice] = []
    sink = Sink(notices.append, most=1)
    _run(sink, _enter(0x1000, 102), _enter(0x2000, 4), _leave(0x2000))
    assert [(notice.kind, notice.call.number) for notice in notices] == [(NoticeKind.UNFINISHED, 102)]
    assert [call.number for call in sink.still_open()] == [102]


def test_without_a_choice_returns_from_before_the_trace_are_told() -> None:
    notices: list[Notice] = []
    _run(Sink(notices.append), _leave(0x9000))
    assert [notice.kind for notice in notices] == [NoticeKind.RESUMED]


def test_a_child_that_a_chosen_fork_began_is_told_of() -> None:
    notices: list[Notice] = []
    sink = Sink(notices.append, choice={1}, pairing=Pairing(fork_numbers=frozenset({1})))
    child = Return(0, 0x2000, 0, None, 0, None, None, None)
    _run(sink, _enter(0x1000, 1), _leave(0x1000), child)
    assert [(notice.call.process, notice.call.number) for notice in notices] == [(1, 1), (2, 1)]


def test_a_call_that_has_not_begun_is_taken_back() -> None:
    notices: list[Notice] = []
    sink = Sink(notices.append)
    sink.feed(_enter(0x1000, 4))
    sink.retract(0, 0x1000, 0x6000)
    assert sink.pairing.entries == 1, "another stack: that is not the call"
    sink.retract(0, 0x1000, 0x7000)
    sink.finish()
    assert (sink.pairing.entries, sink.shown, notices) == (0, 0, [])


def test_it_is_taken_back_whether_its_entry_told_the_cpu_or_not() -> None:
    sink = Sink(lambda _notice: None)
    sink.feed(replace(_enter(0x1000, 4), cpu=None))
    sink.retract(0, 0x1000, 0x7000)
    assert sink.pairing.entries == 0


EXIT, WAIT = 60, 61


def _exiting() -> tuple[Sink, list[tuple[NoticeKind, int | None]]]:
    told: list[tuple[NoticeKind, int | None]] = []
    pairing = Pairing(exit_numbers=frozenset({EXIT}), wait_numbers=frozenset({WAIT}))
    sink = Sink(lambda each: told.append((each.kind, each.call.number)), pairing=pairing, is_told_before=True)
    return sink, told


def test_an_exit_that_has_not_begun_is_taken_back_and_never_told() -> None:
    sink, told = _exiting()
    sink.feed(_enter(0x1000, EXIT))
    sink.feed(replace(_enter(0x2000, 4), cpu=1))
    sink.feed(replace(_leave(0x2000), cpu=1))
    sink.retract(0, 0x1000, 0x7000)
    sink.finish()
    assert (told, sink.pairing.entries, sink.shown) == ([(NoticeKind.WHOLE, 4)], 1, 1)


def test_an_exit_is_told_when_its_cpu_goes_on_or_at_the_end() -> None:
    sink, told = _exiting()
    sink.feed(_enter(0x1000, EXIT))
    assert told == []
    sink.feed(_enter(0x2000, 4))
    assert told == [(NoticeKind.WHOLE, EXIT)]
    sink.feed(_leave(0x2000))
    sink.feed(_enter(0x3000, EXIT))
    assert len(told) == 2
    sink.finish()
    assert told[2:] == [(NoticeKind.WHOLE, EXIT)]


@pytest.mark.parametrize(("process_id", "is_told"), [(7, True), (8, False)])
def test_an_exit_is_told_when_somebody_has_waited_for_that_process(process_id: int, *, is_told: bool) -> None:
    """Each wait here gets 7. It is told of behind the exit."""
    sink, told = _exiting()
    sink.feed(replace(_enter(0x3000, EXIT), process_id=process_id))
    sink.feed(replace(_enter(0x4000, WAIT), cpu=1))
    sink.feed(replace(_leave(0x4000), cpu=1))
    assert told == [*[(NoticeKind.WHOLE, EXIT)] * is_told, (NoticeKind.WHOLE, WAIT)]


def test_an_exit_that_is_logged_twice_has_not_begun_by_that() -> None:
    sink, told = _exiting()
    sink.feed(_enter(0x1000, EXIT))
    sink.feed(replace(_enter(0x1000, EXIT), repeats=True))
    assert (told, sink.pairing.entries) == ([], 1)


class _Cpu(StubMemory):
    def registers(self) -> Mapping[str, int]:
        return {}


class _Watcher:
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def at_entry(self, call: Call, cpu: StoppedCpu) -> None:
        self._seen.append(f"entry of {call.number}")

    def at_return(self, call: Call, cpu: StoppedCpu) -> None:
        self._seen.append(f"return of {call.number}")


def test_observers_have_looked_at_a_call_before_it_is_written() -> None:
    """An exit is told of at its entry."""
    seen: list[str] = []
    sink = Sink(
        lambda notice: seen.append(f"line of {notice.call.number}"),
        pairing=Pairing(exit_numbers=frozenset({0})),
        observers=[_Watcher(seen)],
        cpu=_Cpu(0, b""),
    )
    _run(sink, _enter(0x1000, 4), _leave(0x1000), _enter(0x1000, 0))
    assert seen == ["entry of 4", "return of 4", "line of 4", "entry of 0", "line of 0"]
