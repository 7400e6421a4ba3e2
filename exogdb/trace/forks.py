"""Whose child a new process is: which of the forks that have no child yet made it.

Proof is the kernel's own number of the new process, which is what the fork returns, or the fork's second return,
with the parent's registers. Where neither is seen, the only parent that can have made it is a guess.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from exogdb.trace.event import Entry, Return
from exogdb.trace.open_call import OpenCall

__all__ = ["Forks"]

_REMEMBERED = 64


@dataclass
class Forks:
    """The newest 64 forks of which the child has not been seen.

    `shared_numbers` are calls that may also make a thread: no child of theirs is guessed.
    """

    shared_numbers: frozenset[int] = frozenset()
    _childless: "deque[OpenCall]" = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def add(self, opened: OpenCall) -> None:
        """A fork has been entered."""
        self._childless.append(opened)

    def discard(self, opened: OpenCall) -> None:
        """A fork has made no child, or its child is known."""
        if opened in self._childless:
            self._childless.remove(opened)

    def take_by_id(self, process_id: int) -> OpenCall | None:
        """The fork that returned `process_id`."""
        return self._take([each for each in self._childless if each.call.result == process_id])

    def find_parent_in_progress(self) -> int | None:
        """The one process that is in a fork now, if it is only one."""
        parents = {each.call.process for each in self._childless if each.call.result is None}
        return parents.pop() if len(parents) == 1 else None

    def take_by_return(self, event: Return, keeps: Callable[[OpenCall, Return], bool]) -> OpenCall | None:
        """The fork whose second return `event` is: result 0 and the parent's registers, says `keeps`."""
        if event.result != 0:
            return None
        return self._choose([each for each in self._of_thread(event) if keeps(each, event)])

    def guess(self, entry: Entry) -> OpenCall | None:
        """The fork that may have made the process that is first seen at `entry`.

        It is the kernel's own way of starting a process that leaves this doubt: the child is first seen at a call.
        """
        able = self._of_thread(entry)
        return self._choose([each for each in able if each.call.number not in self.shared_numbers])

    def may_have_made(self, event: Entry | Return) -> bool:
        """Whether a fork without a child is such that the process in `event` can be its child."""
        return bool(self._of_thread(event))

    def _of_thread(self, event: Entry | Return) -> list[OpenCall]:
        return [each for each in self._childless if each.thread[1] == event.fs_base]

    def _choose(self, forks: list[OpenCall]) -> OpenCall | None:
        """The oldest of them; None if more than one process may be the parent."""
        if len({each.call.process for each in forks}) != 1:
            return None
        for each in forks:
            each.is_mixed_up |= len(forks) > 1
        return self._take(forks)

    def _take(self, forks: list[OpenCall]) -> OpenCall | None:
        if not forks:
            return None
        self._childless.remove(forks[0])
        return forks[0]
