"""exogdb/trace/repeats.py: what QEMU's log has twice, and what only looks like it."""

from pathlib import Path

from exogdb.trace.call import CallState
from exogdb.trace.event import Entry, Event, Return
from exogdb.trace.execlog import LogParser
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.pairing import Pairing
from exogdb.trace.points import TracePoints

_EXIT, _FORK, _WAIT, _RECEIVE = 0, 1, 3, 102
_DATA = Path(__file__).parent / "data"
_POINTS = TracePoints(0xFFFFFFFF80109000, frozenset({0xFFFFFFFF80109040}))
_TASKS = {0xFFFFFFFF804504E0: 0, 0xFFFFFFFF80450620: 1, 0xFFFFFFFF80450760: 2, 0xFFFFFFFF804508A0: 3}


def _enter(cpu: int = 0, number: int = _RECEIVE, *, repeats: bool = False, interruptible: bool = False) -> Entry:
    return Entry(cpu, 0x1000, 0, "r", number, (0,) * 6, 0x400000, 0x7000, None, None, repeats, interruptible)


def _leave(cpu: int = 0, *, repeats: bool = False, stack: int = 0xF000, interruptible: bool = False) -> Return:
    return Return(cpu, 0x1000, 0, "r", 8, stack, None, None, None, repeats, interruptible)


def _other(cpu: int = 1) -> Entry:
    return Entry(cpu, 0x2000, 0, "other", _RECEIVE, (0,) * 6, 0x400000, 0x7000, None)


def _feed(pairing: Pairing, *events: Event) -> list[Notice]:
    return [notice for event in events for notice in pairing.feed(event)]


def _pairing() -> Pairing:
    return Pairing(fork_numbers=frozenset({_FORK}), exit_numbers=frozenset({_EXIT}))


def _ended(notices: list[Notice]) -> list[tuple[CallState, int | None]]:
    return [(each.call.state, each.call.result) for each in notices if each.kind is not NoticeKind.UNFINISHED]


def test_an_entry_that_is_written_twice_is_one_call() -> None:
    pairing = _pairing()
    notices = _feed(pairing, _enter(), _other(), _enter(repeats=True), _leave())
    assert _ended(notices) == [(CallState.RETURNED, 8)]
    assert (pairing.entries, pairing.repeats.repeated) == (2, 1)


def test_the_same_call_made_again_after_a_return_on_another_cpu_is_a_second_one() -> None:
    """Nothing else was seen on CPU 0 in between, and every register is as before."""
    pairing = _pairing()
    notices = _feed(pairing, _enter(0), _leave(1), _enter(0, repeats=True), _leave(0))
    assert _ended(notices) == [(CallState.RETURNED, 8)] * 2
    assert (pairing.entries, pairing.repeats.repeated) == (2, 0)


def test_a_return_that_is_written_twice_is_one() -> None:
    pairing = _pairing()
    notices = _feed(pairing, _enter(), _leave(), _other(), _leave(repeats=True))
    assert _ended(notices) == [(CallState.RETURNED, 8)]
    assert (pairing.returns, pairing.repeats.repeated) == (1, 1)


def test_the_same_return_after_an_entry_on_another_cpu_is_a_second_one() -> None:
    notices = _feed(_pairing(), _enter(1), _leave(0), _enter(1), _leave(0, repeats=True))
    assert _ended(notices) == [(CallState.RETURNED, 8)] * 2


def test_a_return_that_is_written_twice_ends_no_call_of_another_thread() -> None:
    """That thread has the same registers, and entered before the first of the two was written."""
    pairing = _pairing()
    twin = Entry(1, 0x1000, 0, "r", 4, (0,) * 6, 0x400000, 0x90000, None)
    _feed(pairing, _enter(), _leave())
    _feed(pairing, twin, _enter(), _leave(), _leave(repeats=True))
    assert [call.number for call in pairing.still_open()] == [4]


def test_with_interrupts_on_a_block_may_be_written_again_much_later_on_another_cpu() -> None:
    pairing = _pairing()
    on = {"interruptible": True}
    notices = _feed(
        pairing, _enter(0, **on), _other(0), _enter(1, **on), _leave(1, **on), _other(1), _leave(2, **on)
    )
    assert _ended(notices)[:1] == [(CallState.RETURNED, 8)]
    assert pairing.repeats.repeated == 2


def test_an_exit_that_is_written_twice_is_one_and_doubted_where_a_fork_could_have_made_another() -> None:
    pairing = _pairing()
    assert len(_feed(pairing, _enter(number=_EXIT), _enter(number=_EXIT, repeats=True))) == 1
    assert (pairing.entries, pairing.repeats.doubtful) == (1, 0)
    fork = Entry(1, 0x2000, 0, "parent", _FORK, (0,) * 6, 0x400000, 0x7000, None)
    assert _feed(pairing, fork, _enter(number=_EXIT, repeats=True)) == []
    assert (pairing.entries, pairing.repeats.doubtful) == (2, 1)


def _read(name: str) -> tuple[Pairing, list[Notice]]:
    """From QEMU 7.2, tracing `run=selftest`."""
    pairing = _pairing()
    events = list(LogParser(_POINTS, _TASKS).feed((_DATA / name).read_bytes()))
    return pairing, _feed(pairing, *events)


def test_what_qemu_wrote_twice() -> None:
    """Twelve dumps of four CPUs: an exit, a wait and a fork are there twice."""
    pairing, notices = _read("execlog-written-twice.txt")
    assert (pairing.entries, pairing.returns, pairing.repeats.repeated) == (6, 3, 3)
    told = [notice.call for notice in notices if notice.kind is not NoticeKind.UNFINISHED]
    ended = [(call.number, call.result) for call in told if call.state is CallState.RETURNED]
    assert ended == [(_FORK, 0xA0), (_WAIT, 0xA0), (_WAIT, 0x8E)]
    assert [call.number for call in pairing.still_open()] == [_FORK]


def test_a_call_after_which_fs_base_is_another() -> None:
    """The program has loaded a null selector into FS; the kernel gives it its base back when it wakes it up."""
    pairing, notices = _read("execlog-fs-base-set.txt")
    states = {notice.call.number: notice.call.state for notice in notices}
    assert states[0x12E] is CallState.RETURNED
    assert CallState.ENTERED_BEFORE not in states.values()
    assert pairing.ambiguous == 0
