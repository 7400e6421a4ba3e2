"""What the runs of all numbers have in common: who runs through which code, calls what, reads which table entry.

A key stands for one number, or for several that are taken as one (all that the table lacks). What only one key's
runs contain is private to it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from exogdb.abi.dispatch.trace import Block, TableRead, Trace

__all__ = ["Coverage"]


class Coverage:
    """Which keys run through which code, call which functions and read which table entries."""

    def __init__(self, traces: Mapping[int, Iterable[Trace]]) -> None:
        self._blocks: dict[Block, set[int]] = {}
        self._starts: dict[int, set[int]] = {}
        self._callees: dict[int, set[int]] = {}
        self._reads: dict[TableRead, set[int]] = {}
        self._way_out: dict[int, set[int]] = {}
        self._on_every_way: set[int] = set()
        behind: dict[tuple[Block, ...], set[int]] = {}  # most have the same
        for key, runs in traces.items():
            for trace in runs:
                self._add(key, trace)
                behind.setdefault(tuple(dict.fromkeys(trace.after)), set()).add(key)
        for blocks, keys in behind.items():
            self._add_behind(keys, blocks)
        passed = [{block.start for block in trace.blocks} for runs in traces.values() for trace in runs]
        self._on_every_way = set.intersection(*passed) if passed else set()
        self._sorted = sorted(self._blocks)
        self._sorted_starts = [block.start for block in self._sorted]
        self._longest = max((block.end - block.start for block in self._sorted), default=0)

    def _add(self, key: int, trace: Trace) -> None:
        self._add_blocks({key}, trace.blocks)
        for _position, read in trace.reads:
            self._reads.setdefault(read, set()).add(key)
        for target in trace.passed | ({trace.call.target} if trace.call is not None else set()):
            self._callees.setdefault(target, set()).add(key)

    def _add_behind(self, keys: set[int], blocks: Iterable[Block]) -> None:
        self._add_blocks(keys, blocks)
        for block in blocks:
            self._way_out.setdefault(block.start, set()).update(keys)

    def _add_blocks(self, keys: set[int], blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._blocks.setdefault(block, set()).update(keys)
            self._starts.setdefault(block.start, set()).update(keys)

    def keys_at(self, address: int) -> set[int]:
        """Every key that executes the instruction at `address`, or calls a function that begins there."""
        keys = set(self._callees.get(address, ()))
        index = bisect_right(self._sorted_starts, address)
        while index > 0 and self._sorted_starts[index - 1] + self._longest > address:
            index -= 1
            if self._sorted[index].end > address:
                keys |= self._blocks[self._sorted[index]]
        return keys

    def private_of(self, key: int, trace: Trace) -> list[int]:
        """First addresses of blocks that only `key` runs through, in the order of the run.

        They end where the run joins another again: what comes later may be everybody's way out. What all runs
        pass on the way in joins none: kernels that fear speculation return from every function through one thunk.
        """
        starts = list(dict.fromkeys(block.start for block in trace.blocks))
        end = next((at for at, start in enumerate(starts) if self._is_join(start, key)), len(starts))
        return [start for start in starts[:end] if self.is_own(key, start)]

    def is_own(self, key: int, start: int) -> bool:
        """Whether `key` alone runs through the block at `start`."""
        return self._starts[start] == {key} and self.keys_at(start) == {key}

    def _is_join(self, start: int, key: int) -> bool:
        return start not in self._on_every_way and bool(self._way_out.get(start, set()) - {key})

    def common_private(self, key: int, runs: list[Trace]) -> list[int]:
        """The private addresses that every run of `key` passes, in the order of the first."""
        rest = [set(self.private_of(key, run)) for run in runs[1:]]
        return [start for start in self.private_of(key, runs[0]) if all(start in other for other in rest)]

    def is_own_callee(self, key: int, target: int) -> bool:
        """Whether `key` alone reaches the function at `target`."""
        return self.keys_at(target) == {key}

    def own_reads(self, key: int, reads: Iterable[TableRead]) -> list[TableRead]:
        """The table entries of which no other key reads a single byte."""
        others = [read for read, keys in self._reads.items() if keys != {key}]
        return [read for read in dict.fromkeys(reads) if not any(_overlap(read, other) for other in others)]

    def companions(self, key: int, blocks: Iterable[Block]) -> set[int]:
        """The other keys that run through every one of `blocks`."""
        common: set[int] | None = None
        for block in blocks:
            keys = self._blocks[block]
            common = set(keys) if common is None else common & keys
        return (common or set()) - {key}


def _overlap(one: TableRead, other: TableRead) -> bool:
    return one.address < other.end and other.address < one.end
