"""Which process an address space belongs to, over a trace.

A process is numbered when it is first seen: 1, 2, 3. The number follows it through exec, where its address space
changes, and is not given to the next process whose page table happens to lie in the same frame.
"""

from dataclasses import dataclass, field

__all__ = ["Lineage"]


@dataclass
class Lineage:
    """Numbers processes by address space (`exogdb.trace.event.address_space`).

    `ending` are the spaces of which a thread has exited, perhaps the last one.
    """

    seen: int = 0
    parent: dict[int, int] = field(default_factory=dict)
    ending: set[int] = field(default_factory=set)
    _of_space: dict[int, int] = field(default_factory=dict)

    def knows(self, space: int) -> bool:
        """Whether a process has been seen in `space`."""
        return space in self._of_space

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

    def execute(self, old_space: int, new_space: int) -> int:
        """exec: the process of `old_space` goes on in `new_space`."""
        process = self.find(old_space)
        if new_space != old_space:
            del self._of_space[old_space]
            self._of_space[new_space] = process
        return process

    def fork(self, parent_process: int, child_space: int) -> int:
        """fork: the process in `child_space` is a new one."""
        child = self.find(child_space)
        self.parent[child] = parent_process
        return child

    def end(self, space: int) -> None:
        """exit: one thread of the process in `space` is gone, perhaps the last one."""
        self.ending.add(space)

    def bury(self, space: int) -> None:
        """No thread is in a call in `space`: after an exit, what is seen there next is another process.

        >>> lineage = Lineage()
        >>> first = lineage.find(0x1000)
        >>> lineage.end(0x1000); lineage.bury(0x1000)
        >>> lineage.find(0x1000)
        2
        """
        if space in self.ending:
            self.ending.discard(space)
            self._of_space.pop(space, None)
