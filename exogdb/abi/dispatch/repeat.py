"""Knowing early that code runs as it has run before.

Behind a dispatcher's handlers all numbers take the same way out. If there is work to do on it (a thread to switch
to, a signal to deliver) that is hundreds of blocks, and to emulate them for each of Linux' numbers takes seconds.
"""

from exogdb.abi.dispatch.trace import Block, Ending, Trace

__all__ = ["Repeat"]

_ALIKE = 40  # blocks in a row that are the same: then so is the rest


class Repeat:
    """What ran before, and how much of it the present run has repeated."""

    def __init__(self) -> None:
        self._known = Trace(0, ending=Ending.FAULT)
        self._first: dict[Block, int] = {}
        self._next = 0
        self._alike = 0

    def begin(self) -> None:
        """Another run begins."""
        self._next = self._alike = 0

    def is_certain(self, block: Block) -> bool:
        """Take the next block of the present run; whether the rest is known by now."""
        known = self._known.blocks
        if self._next < len(known) and known[self._next] == block:
            self._next += 1
            self._alike += 1
            return self._alike >= _ALIKE
        position = self._first.get(block, -1)
        self._next = position + 1
        self._alike = int(position >= 0)
        return False

    def complete(self, trace: Trace) -> None:
        """Add the rest to a run that ended where it was certain; another is known from now on."""
        if trace.ending is Ending.ALIKE:
            trace.blocks += self._known.blocks[self._next :]
            trace.passed |= self._known.passed
            trace.ending = self._known.ending
        elif self._known.ending is Ending.FAULT:
            self._known = trace
            self._first = {block: at for at, block in reversed(list(enumerate(trace.blocks)))}
