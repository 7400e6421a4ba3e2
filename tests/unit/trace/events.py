"""Events for the tests of pairing, short enough to be read as a story."""

from exogdb.trace.call import CallState
from exogdb.trace.event import Entry, Event, Return
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.pairing import Pairing

__all__ = ["CLONE", "EXEC", "EXIT", "EXIT_GROUP", "FORK", "WAIT", "enter", "feed", "leave", "linux", "states"]

CLONE, FORK, EXEC, EXIT, WAIT, EXIT_GROUP = 56, 57, 59, 60, 61, 231
_NONE = (0, 0, 0, 0, 0, 0)


def linux() -> Pairing:
    """A pairing that knows Linux's numbers."""
    return Pairing(
        fork_numbers=frozenset({FORK, CLONE}),
        exit_numbers=frozenset({EXIT, EXIT_GROUP}),
        exec_numbers=frozenset({EXEC}),
        wait_numbers=frozenset({WAIT}),
        thread_numbers=frozenset({CLONE}),
        thread_exit_numbers=frozenset({EXIT}),
    )


def enter(
    space: int,
    number: int,
    *arguments: int,
    cpu: int = 0,
    fs: int = 0,
    kept: object = "r",
    rsp: int = 0x7000,
    process: int | None = None,
) -> Entry:
    """An entry; `process` is the kernel's number, if the engine has looked."""
    one, two, three, four, five, six = (*arguments, *_NONE)[:6]
    entry = Entry(cpu, space, fs, kept, number, (one, two, three, four, five, six), 0x400000, rsp, None)
    entry.process_id = process
    return entry


def leave(
    space: int,
    result: int = 0,
    *,
    cpu: int = 0,
    fs: int = 0,
    kept: object = "r",
    stack: int | None = None,
    repeats: bool = False,
) -> Return:
    """A return; `repeats` if the CPU's last event was the very same."""
    return Return(cpu, space, fs, kept, result, stack, None, None, None, repeats)


def feed(pairing: Pairing, *events: Event) -> list[Notice]:
    """All that the events bring."""
    return [notice for event in events for notice in pairing.feed(event)]


def states(notices: list[Notice]) -> list[tuple[int | None, CallState, int | None]]:
    """Number, state and result of each that has come to its end."""
    ended = [each.call for each in notices if each.kind is not NoticeKind.UNFINISHED]
    return [(call.number, call.state, call.result) for call in ended]
