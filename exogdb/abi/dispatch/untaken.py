"""Branches of which no run took the one side: what lies there is not known, nor who goes there.

Every number is run once, with one set of arguments and the memory as it is. A branch of a number's own code that
depends on anything else leads some of its calls elsewhere, past what the run came by::

    arm of 101 --> if (!buffer) return -EFAULT --> sys_send        the arm is reached by all calls, sys_send is not
"""

from collections.abc import Iterable, Sequence, Set
from itertools import pairwise

from exogdb.abi.dispatch.block_code import BlockCode
from exogdb.abi.dispatch.trace import Block, Trace

__all__ = ["Untaken"]


class Untaken:
    """What the code at the end of a block may do that none of `traces` did."""

    def __init__(self, code: BlockCode, traces: Iterable[Trace]) -> None:
        self._code = code
        self._taken: dict[int, set[int]] = {}
        for trace in traces:
            for block, following in pairwise(trace.blocks):
                self._taken.setdefault(block.end, set()).add(following.start)

    def may_leave(self, block: Block) -> bool:
        """Whether `block` ends with a branch of which no run took one of the sides."""
        taken = self._taken.get(block.end, set())
        if len(taken) > 1 or not self._code.may_branch(block):
            return False
        last = self._code.last(block)
        return last is not None and last.is_conditional and not {last.target, last.next} <= taken

    def is_told_apart(self, blocks: Iterable[Block], own: Set[int]) -> bool:
        """Whether `blocks`, a run's, get to one in `own` by branches that were each seen both ways.

        A jump to where memory or a register says was not: a table has entries of numbers that did not run.
        """
        for block in blocks:
            if block.start in own:
                return True
            if self.may_leave(block) or self._is_indirect(block):
                return False
        return False

    def _is_indirect(self, block: Block) -> bool:
        """Whether it ends with a jump or a call to where memory or a register says."""
        last = self._code.last(block)
        return last is not None and last.mnemonic in ("jmp", "call") and last.target is None

    def certain(self, blocks: Sequence[Block], own: Set[int]) -> tuple[set[int], bool]:
        """First addresses of `blocks`, a run's, that such a call cannot miss, and whether it cannot miss its end.

        Judged from the first of `own` on, which are the run's alone: what decides before tells the numbers apart.
        """
        begin = next((at for at, block in enumerate(blocks) if block.start in own), len(blocks))
        leaves = next((at for at in range(begin, len(blocks)) if self.may_leave(blocks[at])), len(blocks))
        return {block.start for block in blocks[: leaves + 1]}, leaves == len(blocks)
