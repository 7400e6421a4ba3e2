"""exogdb/trace/pairing.py: when a process is gone, so that its address space is another's."""

import pytest

from exogdb.trace.call import CallState
from exogdb.trace.pairing import Pairing
from tests.unit.trace.events import CLONE, EXIT, EXIT_GROUP, FORK, WAIT, enter, feed, leave, linux, states

_RECEIVE = 102
_NOHANG, _UNTRACED, _CONTINUED = 1, 2, 8


@pytest.mark.parametrize(
    ("options", "process"),
    [(0, 3), (_NOHANG, 3), (_UNTRACED, 2), (_NOHANG | _CONTINUED, 2), (0x7FFF_F002, 3)],
)
def test_a_child_that_has_only_stopped_is_not_gone(options: int, process: int) -> None:
    """The last argument is an address: that kernel's wait has no options."""
    pairing = linux()
    feed(
        pairing, enter(0x1000, FORK, process=10), leave(0x1000, 12), enter(0x2000, 4, process=12), leave(0x2000, 1)
    )
    feed(pairing, enter(0x1000, WAIT, 12, 0x8000, options), leave(0x1000, 12))
    (notice,) = feed(pairing, enter(0x2000, 4), leave(0x2000, 1))
    assert notice.call.process == process


def _kill_in_a_call(pairing: Pairing) -> list[tuple[int | None, CallState, int | None]]:
    """Process 2 is killed while it waits for a message, and its parent has heard of it."""
    feed(pairing, enter(0x1000, FORK, process=10), enter(0x2000, _RECEIVE, cpu=1, process=12), leave(0x1000, 12))
    return states(feed(pairing, enter(0x1000, WAIT), leave(0x1000, 12)))


def test_the_call_that_a_process_was_killed_in_ends_with_it() -> None:
    pairing = linux()
    told = _kill_in_a_call(pairing)
    assert told == [(_RECEIVE, CallState.NEVER_RETURNED, None), (WAIT, CallState.RETURNED, 12)]
    (notice,) = feed(pairing, enter(0x2000, 4, rsp=0x5000), leave(0x2000, 9))
    assert notice.call.process == 3


def test_the_next_process_in_that_page_table_does_not_return_from_it() -> None:
    pairing = linux()
    _kill_in_a_call(pairing)
    feed(pairing, enter(0x1000, FORK), leave(0x1000, 13))
    (notice,) = feed(pairing, leave(0x2000, 0, stack=0xB000))
    assert (notice.call.process, notice.call.state) == (3, CallState.STARTED_BY_FORK)


def test_the_exit_of_a_whole_process_ends_the_calls_of_its_other_threads() -> None:
    pairing = linux()
    feed(pairing, enter(0x1000, _RECEIVE, rsp=0x90000, fs=9, cpu=1), enter(0x1000, EXIT_GROUP))
    notices = feed(pairing, enter(0x1000, 4, rsp=0x5000), leave(0x1000, 9, stack=0xA000))
    assert states(notices) == [(_RECEIVE, CallState.NEVER_RETURNED, None), (4, CallState.RETURNED, 9)]
    assert [notice.call.process for notice in notices] == [1, 2]


def test_a_thread_may_still_return_while_its_process_exits() -> None:
    pairing = linux()
    feed(pairing, enter(0x1000, _RECEIVE, rsp=0x90000, fs=9, cpu=1), enter(0x1000, EXIT_GROUP))
    (notice,) = feed(pairing, leave(0x1000, 5, fs=9, cpu=1))
    assert (notice.call.process, notice.call.state) == (1, CallState.RETURNED)
    (notice,) = feed(pairing, enter(0x1000, 4), leave(0x1000, 9))
    assert notice.call.process == 2


def test_the_exit_of_one_thread_leaves_the_calls_of_the_others() -> None:
    """As does an exit where it is not known whether it ends them."""
    for pairing in (linux(), Pairing(exit_numbers=frozenset({EXIT}))):
        feed(pairing, enter(0x1000, _RECEIVE, rsp=0x90000, fs=9, cpu=1), enter(0x1000, EXIT))
        first, second = feed(pairing, enter(0x1000, 4, rsp=0x50000), leave(0x1000, 9), leave(0x1000, 5, fs=9))[-2:]
        assert [first.call.process, second.call.process] == [1, 1]
        assert second.call.state is CallState.RETURNED


def test_a_child_that_shares_its_parents_page_table_does_not_end_the_parents_calls() -> None:
    """clone with CLONE_VM and CLONE_VFORK, as `posix_spawn` does."""
    pairing = linux()
    feed(pairing, enter(0x1000, _RECEIVE, rsp=0x90000, fs=9, cpu=1), enter(0x1000, CLONE, kept="clone"))
    feed(pairing, enter(0x1000, EXIT_GROUP, rsp=0x30000))
    notices = feed(pairing, leave(0x1000, 12, kept="clone"), leave(0x1000, 5, fs=9, cpu=1))
    returned = CallState.RETURNED
    assert states(notices) == [(CLONE, returned, 12), (_RECEIVE, returned, 5)]
