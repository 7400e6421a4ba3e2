"""What QEMU's log has twice: a block that was left before its first instruction, and begun again.

Registers alone do not tell that from a thread that does the very same once more, so what else happened meanwhile
is asked: a thread cannot enter while it is in a call, nor return without having entered.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from exogdb.trace.call import CallState
from exogdb.trace.event import Entry, Return
from exogdb.trace.open_call import OpenCall

__all__ = ["Repeats"]

_REMEMBERED_RETURNS = 4096


# The last return on a kernel stack: address space, callee-saved registers, result, and calls entered by then.
_LastReturn: TypeAlias = tuple[int, object, int | None, int]


@dataclass
class Repeats:
    """`repeated` counts events that were the same ones again, `doubtful` those that may yet have been calls."""

    exit_numbers: frozenset[int] = frozenset()
    repeated: int = 0
    doubtful: int = 0
    _entered_on: dict[int | None, OpenCall] = field(default_factory=dict)
    _returned_on: dict[int, _LastReturn] = field(default_factory=dict)

    def note_entry(self, opened: OpenCall) -> None:
        """A call was entered."""
        self._entered_on[opened.call.cpu] = opened

    def note_return(self, event: Return, entries: int) -> None:
        """A return was seen when `entries` calls had been entered."""
        stack = event.kernel_stack
        if stack is None:
            return
        self._returned_on[stack] = (event.space, event.preserved, event.result, entries)
        if len(self._returned_on) > _REMEMBERED_RETURNS:
            del self._returned_on[next(iter(self._returned_on))]

    def count_entries_before(self, stack: int) -> int:
        """How many calls had been entered when `stack` was left last: whoever is on it now entered later."""
        last = self._returned_on.get(stack)
        return 0 if last is None else last[3]

    def is_entered_already(self, entry: Entry, in_space: Iterable[OpenCall], fork_returns: int | None) -> bool:
        """Whether this is a call that was seen entering before; `in_space` are the open ones in its address space.

        With interrupts off only the same CPU can show it again, as its very next event. An exit that repeats the
        one before may also be that of a new process with the same page table, if a fork could have made it:
        `fork_returns` counts the forks that have returned, and is None while one is in progress.
        """
        last = self._entered_on.get(entry.cpu) if entry.repeats and entry.cpu is not None else None
        if last is not None and last.call.number in self.exit_numbers:
            self.doubtful += fork_returns is None or fork_returns > last.forks_before
            is_entered = True
        elif last is not None:
            is_entered = last.call.state is CallState.IN_PROGRESS
        else:
            may_be_again = entry.repeats or entry.interruptible
            is_entered = may_be_again and any(each.is_entered_by(entry) for each in in_space)
        self.repeated += is_entered
        return is_entered

    def has_returned_already(self, event: Return) -> bool:
        """Whether this return, which fits no call, is the one that was seen last on its kernel stack."""
        if event.kernel_stack is None or not (event.repeats or event.interruptible):
            return False
        last = self._returned_on.get(event.kernel_stack)
        has_returned = last is not None and last[:3] == (event.space, event.preserved, event.result)
        self.repeated += has_returned
        return has_returned
