"""The outcome of planning: for each number a place to stop at, with what it costs and how it is verified.

Plans are kept as long as the code that they were made from is still there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from exogdb.abi.dispatch.table_range import TableRange
from exogdb.abi.dispatch.trace import Block, DispatcherEntry, TableRead
from exogdb.abi.stub.location import Location
from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["Cost", "FindArguments", "JoinEntries", "Machine", "Place", "PlaceKind", "Plan", "PlanCache", "combine"]


@dataclass(frozen=True)
class Machine:
    """What runs the guest's code. `no_watching` says why no table entry can be watched; empty if it can.

    `pages_cost`: a page with a breakpoint runs one instruction at a time, as in QEMU's translator.
    """

    no_watching: str = ""
    pages_cost: bool = True


FindArguments = Callable[[int, int], tuple[Location | None, ...]]
"""For a number and an address on its way, where its six arguments are there; None for what is gone."""

JoinEntries = Callable[[Mapping[int, TableRead]], tuple[TableRange, ...]]
"""For table entries by number, the ranges that they are in."""


class PlaceKind(Enum):
    """How a place is watched."""

    ADDRESS = "breakpoint"
    TABLE_ENTRY = "read watchpoint"
    DISPATCHER = "condition at the dispatcher"
    BEHIND_DISPATCHER = "breakpoint behind one at the dispatcher"


class Cost(Enum):
    """What calls pay that are not wanted, cheapest first."""

    FREE = "free"
    WATCHED_TABLE = "nearly free (watched table)"
    SHARED_WITH_CALLS = "page shared with other calls"
    SHARED_PAGE = "page shared with the dispatcher"
    STOP_PER_MERGED_CALL = "one stop per call of the numbers that share the arm"
    STOP_PER_CALL = "one stop per system call"


@dataclass(frozen=True)
class Place:
    """Where to stop for `number` (`UNKNOWN` for all that the table lacks).

    The user stops at `address`. With `entry`, a read of that table entry comes first and tells the number. If
    `kind` is `BEHIND_DISPATCHER`, a stop at the dispatcher does; one of the breakpoint's other places is there.
    `numbers` are those that reach `address`; where they are several, `number_at` says where the number is then.
    `arguments` are the six, None where one is gone. Stack offsets count from rsp at `address`: `return_slot` is
    that of the dispatcher's return address, None where every call has another; `caller_slot` that of the
    function's own, which must hold one of `callers` (None in it: the same as the dispatcher's), else the function
    was called from elsewhere. `is_number_saved`: the entry stub's copy of the number is still there; `held_at` is
    where the dispatcher keeps it, if it does and nothing else tells.
    """

    number: int
    kind: PlaceKind
    address: int
    cost: Cost
    numbers: frozenset[int]
    number_at: Location | None
    arguments: tuple[Location | None, ...]
    return_slot: int | None
    caller_slot: int | None = None
    callers: frozenset[int | None] = frozenset()
    entry: TableRead | None = None
    reasons: tuple[str, ...] = ()
    is_number_saved: bool = False
    held_at: Location | None = None

    def where_every_call_is_wanted(self) -> "Place":
        """The same place without its table entry, if its address tells the number: one stop a call, not two."""
        if self.entry is None or self.numbers != {self.number}:
            return self
        reason = "every call is chosen, so each pays for its stop alone: no table entry is watched"
        return self._stopping_every_call(PlaceKind.ADDRESS, reason)

    def where_the_dispatcher_is_watched(self) -> "Place":
        """The same place for a breakpoint that sees every call at the dispatcher anyway, and decides there."""
        if self.kind is PlaceKind.DISPATCHER:
            return self
        reason = "every call stops at the dispatcher for this breakpoint, and those that are wanted stop here, too"
        return self._stopping_every_call(PlaceKind.BEHIND_DISPATCHER, reason)

    def _stopping_every_call(self, kind: PlaceKind, reason: str) -> "Place":
        return replace(self, kind=kind, cost=Cost.STOP_PER_CALL, entry=None, reasons=(*self.reasons, reason))


def combine(places: Sequence[Place], *, is_every_call: bool) -> list[Place]:
    """What costs least for one breakpoint on all of `places`; `is_every_call`: no number is left out."""
    if any(place.kind is PlaceKind.DISPATCHER for place in places):
        return [place.where_the_dispatcher_is_watched() for place in places]
    return [place.where_every_call_is_wanted() for place in places] if is_every_call else list(places)


class Plan(Mapping[int, Place]):
    """The place of every number and of `UNKNOWN`; `code` is what the plan was made from.

    `counters` are addresses of 8-byte words that the dispatcher adds 1 to in every call: one for all
    CPUs, or several of which some may be a CPU's own.
    `find_arguments` tells where the six arguments of a number are when its call comes by an address.
    `join_entries` makes the ranges to watch from table entries by number.
    """

    def __init__(
        self,
        places: Mapping[int, Place],
        code: Mapping[Block, bytes],
        counters: Iterable[int] = (),
        find_arguments: FindArguments = lambda _number, _address: (None,) * 6,
        join_entries: JoinEntries = lambda _entries: (),
    ) -> None:
        self._places = dict(places)
        self.code = dict(code)
        self.counters = tuple(counters)
        self.find_arguments = find_arguments
        self._join_entries = join_entries

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def ranges(self, places: Iterable[Place]) -> tuple[TableRange, ...]:
        """What to watch so that a read of the table entry of any of `places` is seen."""
        return self._join_entries({place.number: place.entry for place in places if place.entry is not None})


class PlanCache:
    """Plans by build id and dispatcher, each good as long as the code it was made from is still there."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, DispatcherEntry], Plan] = {}

    def clear(self) -> None:
        """Forget every plan."""
        self._plans.clear()

    def get(self, memory: ReadableMemory, build_id: str, entry: DispatcherEntry, make: Callable[[], Plan]) -> Plan:
        """The plan for this build and this code, made now if there is none."""
        plan = self._plans.get((build_id, entry))
        if plan is None or not _has_code(memory, plan.code):
            plan = self._plans[build_id, entry] = make()
        return plan


def _has_code(memory: ReadableMemory, code: Mapping[Block, bytes]) -> bool:
    try:
        return all(memory.read(block.start, len(data)) == data for block, data in code.items())
    except MemoryFault:
        return False
