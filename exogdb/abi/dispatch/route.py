"""Which code each system-call number reaches, found by running the dispatcher once per number.

The dispatcher is emulated from its first instruction with every number of the table and with some that the
table lacks. A run ends where it calls something; a call that has to be entered to tell two numbers apart (a
counter, a check that comes first, a nested dispatcher, a function that returns a function pointer) is followed
in the next round. What only one number's run contains is private to that number::

    entry ----> compare/jump -----> arm of 101 ----> call or jump: sys_ipc_send
      |  shared by all |  \\-------> arm of 102 ----> ...
      |                \\----------> default arm: every number that the table lacks
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

from exogdb.abi.dispatch.block_code import BlockCode
from exogdb.abi.dispatch.coverage import Coverage
from exogdb.abi.dispatch.emulation import Emulator
from exogdb.abi.dispatch.number_flow import NumberFlow, follow_number
from exogdb.abi.dispatch.table_entry import says_where
from exogdb.abi.dispatch.trace import Block, DispatcherEntry, Ending, Snapshot, TableRead, Trace
from exogdb.abi.dispatch.untaken import Untaken
from exogdb.x86.memory import ReadableMemory

__all__ = ["UNKNOWN", "Route", "Routes", "find_routes", "sample_unknown"]

UNKNOWN = -1
"""Stands in a `Route` for all numbers that the table lacks."""

_T = TypeVar("_T")
_MAX_ROUNDS = 48
_FEW = 4


@dataclass(frozen=True)
class Route:
    """Where one number goes, all in the order in which the code runs.

    `private` are first addresses of blocks that no other number's run touches and no call of this one can miss;
    `callee` is the function called at the end, and `is_callee_private` whether only this number calls it, and each
    of its calls does. `reads` are table entries that no other run reads, and that say where this one goes.
    `shared_with` are the numbers that run through every block that this one runs through.
    """

    number: int
    blocks: tuple[Block, ...]
    private: tuple[int, ...]
    callee: int | None
    is_callee_private: bool
    reads: tuple[TableRead, ...]
    shared_with: frozenset[int]
    ending: Ending


class Routes(Mapping[int, Route]):
    """The routes of all numbers, and of `UNKNOWN`, with the emulator that can go there again."""

    def __init__(self, emulator: Emulator, traces: Mapping[int, list[Trace]], walk: "_Walk") -> None:
        self._emulator = emulator
        self._traces = traces
        self._walk = walk
        self._wrapped: dict[int, set[int]] = {}
        self._coverage = coverage = Coverage(traces)
        self._code = BlockCode(emulator)
        self._untaken = untaken = Untaken(self._code, (run for runs in traces.values() for run in runs))
        routes = {key: _to_route(key, traces[key], coverage, untaken) for key in traces}
        self._routes = {key: replace(route, reads=self._entries(route)) for key, route in routes.items()}

    def __getitem__(self, number: int) -> Route:
        return self._routes[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def snapshots(self, number: int, address: int) -> list[tuple[int, Snapshot]]:
        """The CPU at `address`, with the number that was emulated: several for `UNKNOWN`, none that miss it."""
        follow = self._follow(number)
        runs = (trace.number for trace in self._traces[number])
        found = ((run, self._emulator.snapshot(run, address, follow, self._walk.skip)) for run in runs)
        return [(run, snapshot) for run, snapshot in found if snapshot is not None]

    def behind(self, number: int, read: TableRead) -> tuple[int, Snapshot] | None:
        """The address right behind the instruction that makes `read` for `number`, and the CPU there, emulated."""
        run = self._traces[number][0].number
        return self._emulator.behind(run, read, self._follow(number), self._walk.skip)

    def is_straight(self, number: int, start: int, address: int) -> bool:
        """Whether code that begins at `start` gets to `address` without a jump, so that no call can miss it."""
        run = self._traces[number][0].number
        trace = self._emulator.run(run, self._follow(number), self._walk.skip, until=address)
        return trace.ending is Ending.REACHED and bool(trace.blocks) and trace.blocks[-1].start == start

    def leads_straight(self, number: int, function: int) -> bool:
        """Whether what `number` calls at its end is a wrapper: its first block calls or jumps to `function`."""
        callee = self._routes[number].callee
        follow = self._follow(number) | {function}
        trace = self._emulator.run(self._traces[number][0].number, follow, self._walk.skip, until=function)
        starts = [block.start for block in trace.blocks[-2:]]
        if trace.ending is not Ending.REACHED or starts != [callee, function]:
            return False
        self._wrapped.setdefault(number, set()).add(function)
        return True

    def _entries(self, route: Route) -> tuple[TableRead, ...]:
        """Those of the reads of `route` that say where it goes."""
        if not route.reads:
            return ()
        run = self._traces[route.number][0]
        targets = {block.start for block in run.blocks} | ({run.call.target} if run.call is not None else set())
        find_named = partial(self._code.named_addresses, run.blocks)
        return tuple(read for read in route.reads if says_where(self._emulator, read, targets, find_named))

    def _follow(self, number: int) -> Set[int]:
        """The calls to enter so that a run gets everywhere in `number`'s route."""
        calls = {run.call.target for run in self._traces[number] if run.call is not None}
        return self._walk.follow | calls | self._wrapped.get(number, set())

    def keys_at(self, address: int) -> frozenset[int]:
        """The numbers that execute the instruction at `address`, or call the function that begins there."""
        return frozenset(self._coverage.keys_at(address))

    def is_default_certain(self) -> bool:
        """Whether all numbers that the table lacks go where the sampled ones do, as far as the code tells.

        Each branch on their way to code of their own was taken both ways, and none goes where memory says.
        """
        own = set(self._routes[UNKNOWN].private)
        runs = self._traces[UNKNOWN]
        return len(self._traces) > 1 and all(self._untaken.is_told_apart(run.blocks, own) for run in runs)

    def common_starts(self, number: int) -> list[int]:
        """First addresses of the blocks that no call of `number` can miss, in the order of its first run."""
        runs = self._traces[number]
        starts = dict.fromkeys(block.start for block in runs[0].blocks)
        fewest = min(len(self.keys_at(start)) for start in starts)
        own = {start for start in starts if len(self.keys_at(start)) == fewest}
        certain = [self._untaken.certain(run.blocks, own)[0] for run in runs]
        return [start for start in starts if all(start in each for each in certain)]

    def follow_number(self, entry: DispatcherEntry, ends: Set[int]) -> NumberFlow | None:
        """Where the dispatcher keeps the number, but for functions that it calls; `ends` are those it jumps to."""
        leads: dict[int, set[int]] = {}
        for trace in (trace for traces in self._traces.values() for trace in traces):
            for block, following in pairwise(trace.blocks):
                leads.setdefault(block.end, set()).add(following.start)
        return follow_number(self._emulator, entry.address, entry.number, leads, ends)

    def counters(self) -> list[int]:
        """The address of a word that counts the calls of all CPUs and processes, if there is one.

        Every run added 1 to it before it was told from the others, and none took it off again. The code itself
        names it: one that a pointer leads to may be a CPU's or a process's own, which stands still meanwhile.
        """
        every = [trace for traces in self._traces.values() for trace in traces]
        counted = set.intersection(*(trace.counters for trace in every))
        named = self._code.named_addresses(set.intersection(*(set(trace.blocks) for trace in every)))
        lowered = {word for trace in every for word in trace.lowered}
        return sorted(counted & named - lowered)[:1]

    def code(self) -> dict[Block, bytes]:
        """All code and table entries that the routes depend on, with the bytes that they had."""
        every = [trace for traces in self._traces.values() for trace in traces]
        blocks = {block for trace in every for block in (*trace.blocks, *trace.after)}
        entries = {Block(read.address, read.end) for route in self._routes.values() for read in route.reads}
        return {each: self._emulator.read(each.start, each.end - each.start) for each in _join(blocks | entries)}


def sample_unknown(numbers: Iterable[int]) -> list[int]:
    """Numbers that are not in `numbers`: next to each of them, far above, and with high bits set.

    >>> sample_unknown([3, 4, 6])
    [2, 5, 7, 1006, 1193046, 305419902, 8526495038820057472, 18446744073709551615]
    """
    known = set(numbers)
    beside = {near for number in known for near in (number - 1, number + 1) if near >= 0}
    far = {max(known, default=0) + 1000, 0x123456, 0x1234567E, 0x7654_3210_0000_0180, (1 << 64) - 1}
    return sorted((beside | far) - known)


def find_routes(
    memory: ReadableMemory, entry: DispatcherEntry, numbers: Iterable[int], gs_base: int = 0
) -> Routes:
    """Emulate `entry` for each of `numbers` and for numbers that are not among them.

    `memory` is read a page at a time, the dispatcher's code and what it needs; nothing is written. `gs_base`
    is the kernel's per-CPU block, for dispatchers that use it. Code that cannot be emulated ends a run early:
    its number then has no private address, which is not an error.
    """
    keys: dict[int, list[int]] = {number: [number] for number in sorted(set(numbers))}
    keys[UNKNOWN] = sample_unknown(keys)
    emulator = Emulator(memory, entry, gs_base)
    walk = _Walk(emulator, {number: key for key, members in keys.items() for number in members})
    runs = walk.explore()
    return Routes(emulator, {key: [runs[number] for number in members] for key, members in keys.items()}, walk)


def _join(ranges: Iterable[Block]) -> list[Block]:
    """The same bytes in as few ranges as there can be.

    >>> _join([Block(8, 12), Block(0, 4), Block(4, 6), Block(2, 3)])
    [Block(start=0, end=6), Block(start=8, end=12)]
    """
    joined: list[Block] = []
    for each in sorted(ranges):
        if joined and each.start <= joined[-1].end:
            joined[-1] = Block(joined[-1].start, max(joined[-1].end, each.end))
        else:
            joined.append(each)
    return joined


def _spread(every: Sequence[_T], few: int) -> list[_T]:
    """The first, the last and what lies between, `few` of them if there are as many.

    >>> _spread([0, 1, 2, 3, 4, 5], 3), _spread([7, 8], 1), _spread([7], 3)
    ([0, 2, 5], [7], [7])
    """
    last, gaps = len(every) - 1, max(few - 1, 1)
    return [every[at] for at in sorted({last * step // gaps for step in range(few)})] if every else []


class _Walk:
    """Repeats the runs, entering more calls each time, until every number that can has an address of its own."""

    def __init__(self, emulator: Emulator, key_of: Mapping[int, int]) -> None:
        self._emulator = emulator
        self._key_of = key_of
        self.follow: set[int] = set()
        self.skip: set[int] = set()
        self._way_out: Set[int] = frozenset()

    def explore(self) -> dict[int, Trace]:
        """The last trace of every number."""
        traces: dict[int, Trace] = {}
        known = [number for number, key in self._key_of.items() if key != UNKNOWN]
        unknown = [number for number, key in self._key_of.items() if key == UNKNOWN]
        for few in (1, _FEW):  # what few have in common, all have
            traces = self._explore(_spread(known, few) + unknown[-1:], traces)
        traces = self._explore(known + unknown, traces)
        arms = {block.start for trace in traces.values() for block in trace.blocks}
        traces = {number: self._run_on(trace, arms) for number, trace in traces.items()}
        for trace in traces.values():
            if trace.ending is Ending.CALL and self._is_on_way_out(trace):
                trace.ending = Ending.WAY_OUT
        return traces

    def _explore(self, numbers: list[int], traces: dict[int, Trace]) -> dict[int, Trace]:
        """Run `numbers` until no call has to be treated in another way; `traces` are runs of some of them.

        A number that has an address of its own is run again only when all that have none are settled.
        """
        traces = {number: traces[number] if number in traces else self._run(number) for number in numbers}
        stale: set[int] = set()
        for _round in range(_MAX_ROUNDS):
            lost, changed = self._widen(traces)
            affected = {number for number, trace in traces.items() if self._is_affected(trace, changed)}
            stale |= affected
            again = affected & lost or stale
            if not again:
                break
            traces |= {number: self._run(number) for number in sorted(again)}
            stale -= again
        return traces

    def _is_affected(self, trace: Trace, changed: Set[int]) -> bool:
        """Whether `trace` would be another one now that calls of `changed` are treated differently."""
        if trace.call is not None and trace.call.target in changed:
            return True
        skipped = changed & self.skip
        return bool(skipped) and not skipped.isdisjoint(block.start for block in trace.blocks)

    def _run(self, number: int) -> Trace:
        return self._emulator.run(number, self.follow - self.skip, self.skip)

    def _run_on(self, trace: Trace, arms: Set[int]) -> Trace:
        # Behind a call that never returns (exit) lies whatever the compiler put there: another number's arm.
        if trace.call is None or trace.call.returns_to in arms:
            return trace
        again = self._run(trace.number)
        self._emulator.run_on(again)
        return again

    def _find_way_out(self, traces: Iterable[Trace]) -> Set[int]:
        """Where the blocks end that run behind every handler that is called, and in front of none.

        Where they begin depends on where a number comes from: one that has no handler jumps there.
        """
        calls = {trace.call: trace for trace in traces if trace.call is not None}
        if len(calls) < 2:
            return frozenset()  # as below, before the handler of one number is emulated in vain
        runs = [(self._run_on(trace, frozenset()), call) for call, trace in _spread(list(calls.items()), _FEW + 1)]
        # A number without a handler to call runs on to a call that is on the way out itself.
        late = {
            call.returns_to
            for _run, call in runs
            for run, other in runs
            if call.returns_to != other.returns_to and any(b.start == call.returns_to for b in run.after)
        }
        early = [run for run, call in runs if call.returns_to not in late]
        if len({run.call for run in early}) < 2:
            return frozenset()
        before = {block.end for run in early for block in run.blocks}
        return set.intersection(*({block.end for block in run.after} for run in early)) - before

    def _is_on_way_out(self, trace: Trace) -> bool:
        return not self._way_out.isdisjoint(block.end for block in trace.blocks)

    def _widen(self, traces: Mapping[int, Trace]) -> tuple[set[int], set[int]]:
        """Decide about more calls: the numbers that have no address of their own, and the calls' targets."""
        keyed: dict[int, list[Trace]] = {}
        for number, trace in traces.items():
            keyed.setdefault(self._key_of[number], []).append(trace)
        coverage = Coverage(keyed)
        lost: set[int] = set()
        changed: set[int] = set()
        without = {key: runs for key, runs in keyed.items() if not coverage.common_private(key, runs)}
        if without:
            self._way_out = self._find_way_out(traces.values())
        for key, runs in without.items():
            for trace in runs:
                lost.add(trace.number)
                if self._is_on_way_out(trace):
                    continue  # no call there tells two numbers apart any more
                if trace.stuck_in is not None and trace.stuck_in not in self.skip:
                    self.skip.add(trace.stuck_in)
                    changed.add(trace.stuck_in)
                elif trace.call is not None and not coverage.is_own_callee(key, trace.call.target):
                    self.follow.add(trace.call.target)
                    changed.add(trace.call.target)
        return lost, changed


def _to_route(key: int, runs: list[Trace], coverage: Coverage, untaken: Untaken) -> Route:
    own = {block.start for run in runs for block in run.blocks if coverage.is_own(key, block.start)}
    certain = [untaken.certain(run.blocks, own) for run in runs]
    private = [
        start
        for start in coverage.common_private(key, runs)
        if all(start in starts for starts, _is_end_certain in certain)
    ]
    is_end_certain = all(is_end for _starts, is_end in certain)
    callees = {run.call.target if run.call is not None else None for run in runs}
    callee = callees.pop() if len(callees) == 1 else None
    reads = [read for run in runs for read in _reads_in_common_code(key, run, coverage)]
    return Route(
        number=key,
        blocks=tuple(dict.fromkeys(block for run in runs for block in run.blocks)),
        private=tuple(private),
        callee=callee,
        is_callee_private=is_end_certain and callee is not None and coverage.is_own_callee(key, callee),
        # One entry stands for one number: the samples for UNKNOWN have none.
        reads=tuple(coverage.own_reads(key, reads)) if key != UNKNOWN else (),
        shared_with=frozenset(coverage.companions(key, runs[0].blocks)),
        ending=runs[0].ending,
    )


def _reads_in_common_code(key: int, trace: Trace, coverage: Coverage) -> list[TableRead]:
    """What was read before the first code of `key`'s own.

    Code that several numbers run through reads a place of one's own if it looks in a table. What a handler reads
    is no table: it may be the running process's data, and another process has it elsewhere.
    """
    blocks = trace.blocks
    end = next((at for at, block in enumerate(blocks) if coverage.is_own(key, block.start)), len(blocks))
    return [read for position, read in trace.reads if position < end]
