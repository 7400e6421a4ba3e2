"""Which process an address space belongs to, over a trace.

A process is numbered when it is first seen: 1, 2, 3. The number follows it through exec, where its address space
changes, and is not given to the next process whose page table happens to lie in the same frame.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from exogdb.trace.call import Parent
from exogdb.trace.event import Entry, Return
from exogdb.trace.forks import Forks
from exogdb.trace.open_call import OpenCall

__all__ = ["Ending", "Lineage"]


class Ending(IntEnum):
    """What is known of the end of an address space's process."""

    GUESSED = 0
    """It may be gone, says a guess."""
    SEEN = 1
    """It is gone, or a thread of it is, perhaps the last one."""
    WHOLE = 2
    """It is gone with all its threads, whatever calls they are in."""


@dataclass
class Lineage:
    """Numbers processes by address space (`exogdb.trace.event.address_space`), and by the kernel's own number
    (`process_id`) where that is known.

    `parents` is by the number of the child. `ending` are the spaces whose process is gone, or may be.
    """

    forks: Forks = field(default_factory=Forks)
    seen: int = 0
    parents: dict[int, Parent] = field(default_factory=dict)
    ending: dict[int, Ending] = field(default_factory=dict)
    _of_space: dict[int, int] = field(default_factory=dict)
    _of_id: dict[int, int] = field(default_factory=dict)
    _told: set[int] = field(default_factory=set)
    _reaped: int | None = None

    def knows(self, space: int) -> bool:
        """Whether a process has been seen in `space`."""
        return space in self._of_space

    def enter(self, entry: Entry) -> int:
        """The process that enters; one that is first seen may be a fork's child."""
        if entry.process_id is not None:
            return self._identify(entry.space, entry.process_id)
        if self.knows(entry.space):
            return self._of_space[entry.space]
        process = self.find(entry.space)
        self._adopt(process, self.forks.guess(entry), is_guess=True)
        return process

    def begin(self, event: Return, keeps: Callable[[OpenCall, Return], bool]) -> OpenCall | None:
        """The fork whose child begins with `event`, a return that fits no call; None if it is something else."""
        if self.knows(event.space):
            return None
        fork = self.forks.take_by_return(event, keeps)
        if fork is not None:
            self._adopt(self.find(event.space), fork, is_guess=False)
        return fork

    def end_fork(self, fork: OpenCall) -> None:
        """The parent's return, with the kernel's number of the child, if there is one."""
        result = fork.call.result
        if fork.call.failed or result is None:
            self.forks.discard(fork)
            return
        if fork.child is not None:
            self._name_child(fork)
            return
        process = self._of_id.get(result)
        if process in self._told:  # the child was faster than its parent
            self.forks.discard(fork)
            self._adopt(process, fork, is_guess=False)

    def find(self, space: int) -> int:
        """The process in `space` now; a new one if that space has not been seen.

        >>> lineage = Lineage()
        >>> lineage.find(0x1000), lineage.find(0x2000), lineage.find(0x1000)
        (1, 2, 1)
        """
        process = self._of_space.get(space)
        if process is None:
            self.seen += 1
            process = self._of_space[space] = self.seen
        return process

    def _identify(self, space: int, process_id: int) -> int:
        """The process with `process_id`, which is in `space` now; a new one if that number has not been seen."""
        self.ending.pop(space, None)
        process = self._of_id.get(process_id)
        if process is None:
            if self._of_space.get(space) in self._told:
                del self._of_space[space]
            process = self._of_id[process_id] = self.find(space)
            self._told.add(process)
            parent = self.forks.find_parent_in_progress()
            if parent is not None:
                self.parents[process] = Parent(parent, is_guess=True)
            self._adopt(process, self.forks.take_by_id(process_id), is_guess=False)
        self._of_space[space] = process
        return process

    def _adopt(self, process: int, fork: OpenCall | None, *, is_guess: bool) -> None:
        if fork is None:
            return
        fork.child = process
        self.parents[process] = Parent(fork.call.process, is_guess)
        self._name_child(fork)

    def _name_child(self, fork: OpenCall) -> None:
        if fork.call.result and fork.child is not None and not fork.is_mixed_up:
            self._of_id[fork.call.result] = fork.child

    def execute(self, process: int, old_space: int, new_space: int) -> None:
        """exec: `process` goes on in `new_space`. Another one may be in `old_space` already."""
        if self._of_space.get(old_space) == process:
            del self._of_space[old_space]
        self._of_space[new_space] = process

    def vacate(self, space: int) -> None:
        """exec, which has not returned yet, has given the page table back: another process is in `space`."""
        self._of_space.pop(space, None)

    def end(self, space: int, ending: Ending = Ending.SEEN) -> None:
        """exit: one thread of the process in `space` is gone, perhaps the last one; or all of them."""
        self.ending[space] = ending

    def reap(self, process_id: int) -> list[tuple[int, int]]:
        """wait: the process with this number of the kernel's is gone, by whatever means; the number is free.

        Which process had it may be a guess: a child from before the trace has no fork in it, and takes another's.
        If it is none, or the process was seen to exit, its space and number are in the answer.
        """
        self.forks.take_by_id(process_id)
        process = self._reaped = self._of_id.pop(process_id, None)
        if process is None:
            return []
        parent = self.parents.get(process)
        is_seen = process in self._told or parent is None or not parent.is_guess
        reaped = Ending.SEEN if is_seen else Ending.GUESSED
        spaces = [space for space, owner in self._of_space.items() if owner == process]
        for space in spaces:
            self.ending[space] = max(reaped, self.ending.get(space, reaped))
        return [(space, process) for space in spaces if is_seen or self.ending[space] is Ending.WHOLE]

    def take_reaped(self) -> int | None:
        """The process that `reap` was told of since this was asked last; None if none, or if it is not known."""
        reaped, self._reaped = self._reaped, None
        return reaped

    def bury(self, event: Entry | Return) -> bool:
        """No thread is in a call in the event's space: after an exit, what is seen there is another process.

        If only a guess says that the process is gone, it is another one if a fork can have made it.
        Returns whether it is.

        >>> lineage = Lineage()
        >>> entry = Entry(0, 0x1000, 0, None, 4, (0,) * 6, 0, 0, None)
        >>> first = lineage.enter(entry)
        >>> lineage.end(0x1000); lineage.bury(entry), lineage.enter(entry)
        (True, 2)
        """
        ending = self.ending.pop(event.space, None)
        if ending is None or not (ending or self.forks.may_have_made(event)):
            return False
        self._of_space.pop(event.space, None)
        return True
