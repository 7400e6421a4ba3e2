"""exogdb/trace/pairing.py: which return belongs to which entry."""

from exogdb.trace.call import Call, CallState, Parent
from exogdb.trace.event import Entry, Event, InHandler, Return
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.pairing import Pairing

_FORK, _EXIT, _EXEC, _WAIT, _RECEIVE = 1, 0, 2, 3, 102
_ALL = (1 << 64) - 1


def _enter(space: int, number: int, *, cpu: int = 0, fs: int = 0, kept: object = "r", rsp: int = 0x7000) -> Entry:
    return Entry(cpu, space, fs, kept, number, (0, 0, 0, 0, 0, 0), 0x400000, rsp, None)


def _identified(space: int, process_id: int, number: int = 4, *, cpu: int = 0) -> Entry:
    """An entry for which the engine has looked whose it is."""
    entry = _enter(space, number, cpu=cpu)
    entry.process_id = process_id
    return entry


def _leave(
    space: int, result: int = 0, *, cpu: int = 0, fs: int = 0, kept: object = "r", stack: int | None = None
) -> Return:
    return Return(cpu, space, fs, kept, result, stack, None, None)


def _feed(pairing: Pairing, *events: Event) -> list[Notice]:
    return [notice for event in events for notice in pairing.feed(event)]


def _told(notices: list[Notice]) -> list[tuple[NoticeKind, int | None, int | None]]:
    return [(notice.kind, notice.call.number, notice.call.result) for notice in notices]


def test_a_call_that_returns_at_once_is_one_notice() -> None:
    notices = _feed(Pairing(), _enter(0x1000, 4), _leave(0x1000, 7))
    assert _told(notices) == [(NoticeKind.WHOLE, 4, 7)]
    assert notices[0].call.state is CallState.RETURNED


def test_a_blocked_call_is_unfinished_when_its_cpu_goes_on_with_another() -> None:
    notices = _feed(Pairing(), _enter(0x1000, _RECEIVE), _enter(0x2000, 101), _leave(0x2000, 5), _leave(0x1000, 6))
    assert [notice.kind for notice in notices] == [NoticeKind.UNFINISHED, NoticeKind.WHOLE, NoticeKind.RESUMED]
    assert [notice.call.process for notice in notices] == [1, 2, 1]
    assert notices[2].call.result == 6


def test_calls_on_two_cpus_at_once_are_not_called_unfinished() -> None:
    notices = _feed(
        Pairing(),
        _enter(0x1000, 4, cpu=0),
        _enter(0x2000, 5, cpu=1),
        _leave(0x1000, 1, cpu=0),
        _leave(0x2000, 2, cpu=1),
    )
    assert _told(notices) == [(NoticeKind.WHOLE, 4, 1), (NoticeKind.WHOLE, 5, 2)]


def test_a_call_may_return_on_another_cpu() -> None:
    (notice,) = _feed(Pairing(), _enter(0x1000, 4, cpu=0), _leave(0x1000, 1, cpu=3))
    assert (notice.call.cpu, notice.call.return_cpu) == (0, 3)


def test_order_alone_never_pairs() -> None:
    """The return that comes next belongs to somebody else, whose entry came before the trace."""
    notices = _feed(Pairing(), _enter(0x1000, _RECEIVE), _leave(0x9000, 3), _leave(0x1000, 8))
    states = [(notice.kind, notice.call.state, notice.call.result) for notice in notices]
    assert states[1] == (NoticeKind.RESUMED, CallState.ENTERED_BEFORE, 3)
    assert states[2] == (NoticeKind.RESUMED, CallState.RETURNED, 8)


def test_threads_of_one_process_are_told_apart_by_their_thread_pointer() -> None:
    notices = _feed(
        Pairing(registers_kept=False),
        _enter(0x1000, 10, fs=0xA, rsp=0x10000),
        _enter(0x1000, 11, fs=0xB, rsp=0x90000),
        _leave(0x1000, 100, fs=0xA),
        _leave(0x1000, 110, fs=0xB),
    )
    ended = {notice.call.number: notice.call.result for notice in notices if notice.call.result is not None}
    assert ended == {10: 100, 11: 110}


def test_threads_without_a_thread_pointer_are_told_apart_by_their_registers() -> None:
    notices = _feed(
        Pairing(),
        _enter(0x1000, 10, kept="a", rsp=0x10000),
        _enter(0x1000, 11, kept="b", rsp=0x90000),
        _leave(0x1000, 100, kept="a"),
        _leave(0x1000, 110, kept="b"),
    )
    assert {n.call.number: n.call.result for n in notices if n.call.result} == {10: 100, 11: 110}


def test_threads_that_look_alike_are_told_apart_by_the_kernel_stack_once_it_is_known() -> None:
    pairing = Pairing()
    _feed(pairing, _enter(0x1000, 4, rsp=0x10000), _leave(0x1000, stack=0xF000))
    _feed(pairing, _enter(0x1000, 4, rsp=0x90000), _leave(0x1000, stack=0xE000))
    notices = _feed(
        pairing,
        _enter(0x1000, 10, rsp=0x10000),
        _enter(0x1000, 11, rsp=0x90000),
        _leave(0x1000, 100, stack=0xF000),
        _leave(0x1000, 110, stack=0xE000),
    )
    assert {n.call.number: n.call.result for n in notices if n.call.result} == {10: 100, 11: 110}
    assert pairing.ambiguous == 0


def test_what_cannot_be_told_apart_is_marked() -> None:
    pairing = Pairing()
    notices = _feed(pairing, _enter(0x1000, 10, rsp=0x10000), _enter(0x1000, 11, rsp=0x90000), _leave(0x1000, 5))
    assert notices[-1].call.is_ambiguous
    assert pairing.ambiguous == 1


def test_exit_is_told_at_once_and_its_page_table_becomes_another_process() -> None:
    pairing = Pairing(exit_numbers=frozenset({_EXIT}))
    notices = _feed(pairing, _enter(0x1000, _EXIT), _enter(0x2000, 4), _leave(0x2000), _enter(0x1000, 4))
    assert (notices[0].kind, notices[0].call.state) == (NoticeKind.WHOLE, CallState.NEVER_RETURNED)
    assert [call.process for call in pairing.still_open()] == [3]


def test_a_return_is_never_given_to_an_exit() -> None:
    """exec takes the frames that an exit has freed: the new image's first return is in the dead one's space."""
    pairing = Pairing(exit_numbers=frozenset({_EXIT}), exec_numbers=frozenset({_EXEC}))
    notices = _feed(pairing, _enter(0x1000, _EXIT), _enter(0x2000, _EXEC), _leave(0x1000, 0))
    assert _told(notices) == [(NoticeKind.WHOLE, _EXIT, None), (NoticeKind.WHOLE, _EXEC, 0)]
    assert [notice.call.process for notice in notices] == [1, 2]


def test_a_call_that_does_not_return_ends_when_its_thread_enters_again() -> None:
    notices = _feed(Pairing(), _enter(0x1000, 15), _enter(0x1000, 4), _leave(0x1000))
    assert [(notice.call.number, notice.call.state) for notice in notices] == [
        (15, CallState.NEVER_RETURNED),
        (4, CallState.RETURNED),
    ]


def test_threads_whose_stacks_lie_close_are_not_taken_for_one() -> None:
    notices = _feed(
        Pairing(),
        _enter(0x1000, 10, kept="a", rsp=0x7000),
        _enter(0x1000, 11, kept="b", rsp=0x6C00, cpu=1),
        _leave(0x1000, 110, kept="b", cpu=1),
        _leave(0x1000, 100, kept="a"),
    )
    assert {
        n.call.number: (n.call.state, n.call.result) for n in notices if n.kind is not NoticeKind.UNFINISHED
    } == {
        10: (CallState.RETURNED, 100),
        11: (CallState.RETURNED, 110),
    }


def test_a_call_that_does_not_return_ends_when_its_kernel_stack_is_known_and_used_by_a_later_call() -> None:
    pairing = Pairing()
    _feed(pairing, _enter(0x1000, 15, kept="signal", rsp=0x7000))
    assert _feed(pairing, _enter(0x1000, 4, rsp=0x7010), _leave(0x1000, stack=0xF000))[-1].call.number == 4
    notices = _feed(pairing, _enter(0x1000, 5, rsp=0x6FF0), _leave(0x1000, stack=0xF000))
    assert [(n.call.number, n.call.state) for n in notices] == [
        (15, CallState.NEVER_RETURNED),
        (5, CallState.RETURNED),
    ]
    notices = _feed(pairing, _enter(0x1000, 15, kept="signal", rsp=0x7004), _enter(0x1000, 6, rsp=0x7008))
    assert [(n.call.number, n.call.state) for n in notices] == [(15, CallState.NEVER_RETURNED)]


def test_a_call_that_restores_other_registers_is_known_by_its_kernel_stack() -> None:
    pairing = Pairing()
    _feed(pairing, _enter(0x1000, 4), _leave(0x1000, stack=0xF000))
    (notice,) = _feed(
        pairing, _enter(0x1000, 15, kept="handler"), _leave(0x1000, 9, kept="interrupted", stack=0xF000)
    )
    assert (notice.call.number, notice.call.state, notice.call.result) == (15, CallState.RETURNED, 9)
    assert not notice.call.is_ambiguous


def test_a_call_that_sets_fs_base_is_a_guess_only_while_nothing_else_is_known_of_its_thread() -> None:
    pairing = Pairing()
    first, second = _feed(
        pairing,
        _enter(0x1000, 158),
        _leave(0x1000, fs=0xA, stack=0xF000),
        *(_enter(0x1000, 4, fs=0xA), _leave(0x1000, fs=0xA, stack=0xF000)),
    )
    assert (first.call.is_ambiguous, second.call.is_ambiguous) == (True, False)
    (third,) = _feed(pairing, _enter(0x1000, 158, fs=0xA), _leave(0x1000, fs=0xB, stack=0xF000))
    assert (third.call.state, third.call.is_ambiguous) == (CallState.RETURNED, False)


def test_the_stack_of_the_caller_names_the_call_where_the_engine_sees_it() -> None:
    (notice,) = _feed(
        Pairing(), _enter(0x1000, 158, rsp=0x7000), Return(0, 0x1000, 0xA, "r", 0, None, 0x7000, None)
    )
    assert (notice.call.state, notice.call.is_ambiguous) == (CallState.RETURNED, False)


def test_a_forks_zero_is_never_the_parents() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    notices = _feed(
        pairing, _enter(0x1000, _FORK), _leave(0x1000, 0, stack=0xE000), _leave(0x1000, 12, stack=0xF000)
    )
    assert [(n.call.state, n.call.result) for n in notices][-1] == (CallState.RETURNED, 12)


def test_exec_into_the_page_table_of_a_process_that_was_killed() -> None:
    """Nobody saw that one end: its address space is still known."""
    pairing = Pairing(exec_numbers=frozenset({_EXEC}))
    _feed(pairing, _enter(0x5000, 4, kept="killed"), _leave(0x5000, kept="killed"))
    exec_entry = Entry(0, 0x1000, 0, "r", _EXEC, (0, 0, 0, 0, 0, 0), 0x400000, 0x7000, None, 0xF000)
    assert not pairing.is_executing
    _feed(pairing, exec_entry)
    assert pairing.is_executing
    (notice,) = _feed(pairing, Return(0, 0x5000, 0, "r", 0, None, 0x6000, None, 0xF000))
    assert (notice.call.number, notice.call.return_space, notice.call.process) == (_EXEC, 0x5000, 2)
    assert not pairing.is_executing


def test_the_child_of_a_fork_is_followed() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    notices = _feed(
        pairing,
        _enter(0x1000, _FORK, kept="parent"),
        _leave(0x1000, 12, kept="parent"),
        _leave(0x2000, 0, kept="parent", stack=0xD000),
    )
    parent, child = (notice.call for notice in notices)
    assert (parent.state, parent.result) == (CallState.RETURNED, 12)
    assert (child.state, child.number, child.process) == (CallState.STARTED_BY_FORK, _FORK, 2)
    assert child.parent == Parent(1, is_guess=False)


def test_two_processes_may_be_the_parent_and_none_is_named() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    _feed(pairing, _enter(0x1000, 4), _leave(0x1000), _enter(0x2000, 4), _leave(0x2000))
    _feed(pairing, _enter(0x1000, _FORK), _enter(0x2000, _FORK, cpu=1), _enter(0x3000, 4, cpu=2))
    assert pairing.newest is not None
    assert (pairing.newest.process, pairing.newest.parent) == (3, None)


def test_a_child_that_is_first_seen_at_a_call_has_a_guessed_parent() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    *_, child = _feed(
        pairing, _enter(0x1000, _FORK), _leave(0x1000, 12), _enter(0x2000, 4, cpu=1), _leave(0x2000, 12)
    )
    assert child.call.parent == Parent(1, is_guess=True)
    other = _feed(pairing, _enter(0x3000, 4, cpu=1), _leave(0x3000, 12))[-1]
    assert other.call.parent is None


def test_a_thread_is_no_child_and_a_failed_fork_has_none() -> None:
    clone = 56
    pairing = Pairing(fork_numbers=frozenset({_FORK, clone}), thread_numbers=frozenset({clone}))
    _feed(pairing, _enter(0x1000, clone), _leave(0x1000, 12), _enter(0x1000, _FORK), _leave(0x1000, -11 & _ALL))
    (notice,) = _feed(pairing, _enter(0x2000, 4), _leave(0x2000))
    assert notice.call.parent is None


def test_the_kernels_own_number_proves_the_parent() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    _feed(pairing, _identified(0x1000, 71, _FORK), _leave(0x1000, 72), _identified(0x9000, 70), _leave(0x9000))
    (notice,) = _feed(pairing, _identified(0x2000, 72), _leave(0x2000))
    assert notice.call.parent == Parent(1, is_guess=False)


def test_a_child_that_calls_before_its_parent_returns_is_a_guess_only_until_then() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}))
    _feed(pairing, _identified(0x1000, 71, _FORK), _identified(0x2000, 72, cpu=1))
    assert pairing.newest is not None
    assert pairing.newest.parent == Parent(1, is_guess=True)
    *_, last = _feed(pairing, _leave(0x1000, 72), _leave(0x2000, cpu=1))
    assert last.call.parent == Parent(1, is_guess=False)


def test_a_killed_process_is_gone_when_the_kernels_number_is_another() -> None:
    pairing = Pairing()
    _feed(pairing, _identified(0x1000, 71), _leave(0x1000))
    (notice,) = _feed(pairing, _identified(0x1000, 72), _leave(0x1000))
    assert notice.call.process == 2
    (notice,) = _feed(pairing, _enter(0x1000, 4), _leave(0x1000))
    assert notice.call.process == 2


def test_a_killed_process_is_gone_when_its_parent_has_waited_for_it() -> None:
    pairing = Pairing(fork_numbers=frozenset({_FORK}), wait_numbers=frozenset({_WAIT}))
    _feed(pairing, _enter(0x1000, _FORK), _leave(0x1000, 12), _enter(0x2000, 4), _leave(0x2000, 12))
    _feed(pairing, _enter(0x1000, _WAIT), _leave(0x1000, 12), _enter(0x1000, _FORK), _leave(0x1000, 13))
    (notice,) = _feed(pairing, _enter(0x2000, 4), _leave(0x2000, 13))
    assert (notice.call.process, notice.call.parent) == (3, Parent(1, is_guess=True))


def test_a_child_of_a_fork_from_before_the_trace_is_not_gone_with_the_one_that_it_was_taken_for() -> None:
    """The fork that returned 12 made another process than the one that is seen first."""
    pairing = Pairing(fork_numbers=frozenset({_FORK}), wait_numbers=frozenset({_WAIT}))
    _feed(pairing, _enter(0x1000, _FORK), _leave(0x1000, 12), _enter(0x2000, 4), _leave(0x2000, 11))
    _feed(pairing, _enter(0x1000, _WAIT), _leave(0x1000, 12))
    calls = [notice.call for notice in _feed(pairing, *(_enter(0x2000, 4), _leave(0x2000, 11)) * 2)]
    assert [call.process for call in calls] == [2, 2]


def test_the_exit_of_one_thread_does_not_end_its_process() -> None:
    pairing = Pairing(exit_numbers=frozenset({_EXIT}), thread_exit_numbers=frozenset({_EXIT}))
    _feed(pairing, _enter(0x1000, _EXIT))
    (notice,) = _feed(pairing, _enter(0x1000, 4), _leave(0x1000))
    assert notice.call.process == 1


def test_exec_is_followed_into_the_new_address_space() -> None:
    pairing = Pairing()
    _feed(pairing, _enter(0x1000, 4), _leave(0x1000, stack=0xF000))
    (notice,) = _feed(pairing, _enter(0x1000, _EXEC), _leave(0x5000, 0, kept="new image", stack=0xF000))
    call = notice.call
    assert (call.number, call.state, call.space, call.return_space) == (_EXEC, CallState.RETURNED, 0x1000, 0x5000)
    (notice,) = _feed(pairing, _enter(0x5000, 4), _leave(0x5000))
    assert notice.call.process == 1


def test_the_first_call_of_a_process_may_be_exec() -> None:
    """Nothing has returned on its kernel stack yet, so that only the registers tell."""
    pairing = Pairing(exec_numbers=frozenset({_EXEC}))
    notices = _feed(
        pairing,
        _enter(0x1000, _RECEIVE, kept="child"),
        _enter(0x2000, _EXEC, kept="child", cpu=1),
        _leave(0x5000, 0, kept="child", stack=0xF000, cpu=1),
    )
    assert [(notice.call.number, notice.call.return_space) for notice in notices] == [(_EXEC, 0x5000)]


def test_execs_that_look_alike_are_told_apart_by_where_their_handlers_run() -> None:
    """Three children of one process, as the demonstration starts them, none of which has returned before."""
    pairing = Pairing(exec_numbers=frozenset({_EXEC}))
    for cpu, space in enumerate((0x1000, 0x2000, 0x3000)):
        stack = 0xF000 + cpu * 0x1000
        _feed(pairing, _enter(space, _EXEC, cpu=cpu), InHandler(cpu, space, stack - 0x100))
    notices = _feed(pairing, *(_leave(0x5000 + n, stack=0xF000 + n * 0x1000, cpu=3) for n in (2, 0, 1)))
    assert [(each.call.process, each.call.return_space) for each in notices] == [
        (3, 0x5002),
        (1, 0x5000),
        (2, 0x5001),
    ]
    assert pairing.ambiguous == 0


def test_execs_that_look_alike_are_a_guess_where_no_handler_is_seen() -> None:
    pairing = Pairing(exec_numbers=frozenset({_EXEC}))
    _feed(pairing, _enter(0x1000, _EXEC, cpu=0), _enter(0x2000, _EXEC, cpu=1))
    (notice,) = _feed(pairing, _leave(0x5000, stack=0xF000, cpu=1))
    assert (notice.call.process, notice.call.is_ambiguous) == (2, True)


def test_another_process_gets_the_page_table_of_an_exec_that_has_not_returned_yet() -> None:
    """The reference kernel frees it a moment before the return; seen with four CPUs."""
    pairing = Pairing(exec_numbers=frozenset({_EXEC}))
    _feed(pairing, _enter(0x1000, _EXEC), InHandler(0, 0x1000, 0xEF00))
    (other,) = _feed(pairing, _enter(0x1000, 4, cpu=1), _leave(0x1000, 12, cpu=1, stack=0x1F000))
    assert (other.call.number, other.call.process, other.call.is_ambiguous) == (4, 2, False)
    (notice,) = _feed(pairing, _leave(0x5000, stack=0xF000))
    assert (notice.call.number, notice.call.state, notice.call.process) == (_EXEC, CallState.RETURNED, 1)
    later = _feed(pairing, _enter(0x5000, 4), _leave(0x5000), _enter(0x1000, 4, cpu=1), _leave(0x1000, cpu=1))
    assert [each.call.process for each in later] == [1, 2]


def test_what_is_open_at_the_end_is_told_once() -> None:
    pairing = Pairing()
    assert _feed(pairing, _enter(0x1000, _RECEIVE)) == []
    assert [notice.kind for notice in pairing.finish()] == [NoticeKind.UNFINISHED]
    assert list(pairing.finish()) == []
    assert [call.number for call in pairing.still_open()] == [_RECEIVE]


def test_every_entry_gets_its_place_in_the_order() -> None:
    pairing = Pairing()
    calls: list[Call] = [
        notice.call
        for notice in _feed(
            pairing, _enter(0x1000, 1), _leave(0x1000), _enter(0x2000, 2), _leave(0x2000), _enter(0x1000, 3)
        )
    ]
    assert [call.sequence for call in calls] == [1, 2]
    assert pairing.entries == 3


def test_a_call_that_is_left_while_its_cpu_does_something_else_is_told_of_once() -> None:
    """The return on CPU 1 shows both that it does something else than the receive, and whose that was."""
    pairing = Pairing()
    for rsp in (0x7000, 0x7800):
        _feed(pairing, _enter(0x1000, 4, rsp=rsp), _leave(0x1000, stack=0xF000))
    _feed(pairing, _enter(0x1000, _RECEIVE, cpu=1, rsp=0x7400), _enter(0x1000, 5, cpu=0, kept="s", rsp=0x7900))
    notices = _feed(pairing, _leave(0x1000, 9, cpu=1, kept="s", stack=0xF000))
    assert _told(notices) == [(NoticeKind.WHOLE, _RECEIVE, None), (NoticeKind.WHOLE, 5, 9)]
    assert notices[0].call.state is CallState.NEVER_RETURNED
