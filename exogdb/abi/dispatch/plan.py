"""Where to stop for a system-call number, at the lowest cost to the calls that are not wanted.

Stopping the virtual machine takes about 0.35 ms, a call that is left alone 0.2 us, so a breakpoint must be
somewhere that only the wanted number reaches. QEMU runs a page that holds a breakpoint one instruction at a
time, so it should also be in a page that no other call runs through. In this order:

1. an address that only this number reaches, in a page of its own: `free`
2. a read watchpoint on the number's own entry of a jump or handler table: `free`, one more stop per hit
3. an address that only this number reaches, in a page that others run through
4. an address that few numbers reach, the number being checked there
5. the dispatcher's first instruction, the number being checked there: `one stop per system call`

`Machine` says where the second is not to be had, and where pages do not matter.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from exogdb.abi.dispatch.dispatch import UNKNOWN, Route, Routes
from exogdb.abi.dispatch.emulation import ARGUMENT_VALUES, Block, DispatcherEntry, Snapshot, TableRead
from exogdb.abi.stub.location import InFrame, Location
from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["Cost", "Machine", "Place", "PlaceKind", "Plan", "PlanCache", "plan_places"]

_PAGE = 4096

FirstLine = Callable[[int], int | None]
"""For the first address of a function, where its body begins; None for any other address."""


@dataclass(frozen=True)
class Machine:
    """What runs the guest's code. `no_watching` says why no table entry can be watched; empty if it can.

    `pages_cost`: a page with a breakpoint runs one instruction at a time, as in QEMU's translator.
    """

    no_watching: str = ""
    pages_cost: bool = True


class PlaceKind(Enum):
    """How a place is watched."""

    ADDRESS = "breakpoint"
    TABLE_ENTRY = "read watchpoint"
    DISPATCHER = "condition at the dispatcher"


class Cost(Enum):
    """What calls pay that are not wanted, cheapest first."""

    FREE = "free"
    SHARED_WITH_CALLS = "page shared with other calls"
    SHARED_PAGE = "page shared with the dispatcher"
    STOP_PER_MERGED_CALL = "one stop per call of the numbers that share the arm"
    STOP_PER_CALL = "one stop per system call"


@dataclass(frozen=True)
class Place:
    """Where to stop for `number` (`UNKNOWN` for all that the table lacks).

    The user stops at `address`. With `entry`, a read of that table entry comes first and tells the number.
    `numbers` are those that reach `address`; where they are several, `number_at` says where the number is then.
    `arguments` are the six, None where one is gone. Stack offsets count from rsp at `address`: `return_slot` is
    that of the dispatcher's return address, `caller_slot` that of the function's own, which must hold one of
    `callers` (None in it: the same as the dispatcher's), else the function was called from elsewhere.
    """

    number: int
    kind: PlaceKind
    address: int
    cost: Cost
    numbers: frozenset[int]
    number_at: Location | None
    arguments: tuple[Location | None, ...]
    return_slot: int
    caller_slot: int | None = None
    callers: frozenset[int | None] = frozenset()
    entry: TableRead | None = None
    reasons: tuple[str, ...] = ()


class Plan(Mapping[int, Place]):
    """The place of every number and of `UNKNOWN`; `code` is what the plan was made from.

    `counters` are addresses of 8-byte words that the dispatcher adds 1 to in every call.
    """

    def __init__(
        self, places: Mapping[int, Place], code: Mapping[Block, bytes], counters: Iterable[int] = ()
    ) -> None:
        self._places = dict(places)
        self.code = dict(code)
        self.counters = tuple(counters)

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class PlanCache:
    """Plans by build id and dispatcher, each good as long as the code it was made from is still there."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, DispatcherEntry], Plan] = {}

    def get(self, memory: ReadableMemory, build_id: str, entry: DispatcherEntry, make: Callable[[], Plan]) -> Plan:
        """The plan for this build and this code, made now if there is none."""
        plan = self._plans.get((build_id, entry))
        if plan is None or not _has_code(memory, plan.code):
            plan = self._plans[build_id, entry] = make()
        return plan


def plan_places(
    routes: Routes,
    entry: DispatcherEntry,
    *,
    hot: Iterable[int] = (),
    first_line: FirstLine = lambda _: None,
    handlers: Mapping[int, int] | None = None,
    machine: Machine | None = None,
) -> Plan:
    """The cheapest place for every number in `routes`.

    `hot` are addresses that every call runs through beside the dispatcher: the entry stub. `first_line` tells
    where a function's body begins, so that its parameters can be read; without it a stop is at its first
    instruction. `handlers` are the addresses of the functions that are named after a number's call, for
    dispatchers that reach them through a wrapper. `machine` is what runs the code, one CPU of QEMU's translator if
    nothing is said.
    """
    hot_pages = {address & -_PAGE for address in hot}
    planner = _Planner(routes, entry, hot_pages, first_line, handlers or {}, machine or Machine())
    places = {number: planner.choose(route) for number, route in routes.items()}
    return Plan(places, routes.code(), routes.counters())


@dataclass(frozen=True)
class _Candidate:
    """`address` is where to stop; `start` is the function it belongs to, if it is the first line of one."""

    address: int
    start: int | None
    cost: Cost


class _Planner:
    def __init__(
        self,
        routes: Routes,
        entry: DispatcherEntry,
        hot_pages: set[int],
        first_line: FirstLine,
        handlers: Mapping[int, int],
        machine: Machine,
    ) -> None:
        self._machine = machine
        self._routes = routes
        self._entry = entry
        self._first_line = first_line
        self._handlers = handlers
        self._dispatcher_pages = hot_pages | {entry.address & -_PAGE}
        self._users: dict[int, set[int]] = {}
        for number, route in routes.items():
            for block in route.blocks:
                pages = set(range(block.start & -_PAGE, block.end, _PAGE))
                if len(routes.keys_at(block.start)) > 1:
                    self._dispatcher_pages |= pages
                for page in pages:
                    self._users.setdefault(page, set()).add(number)
            for function in (route.callee, handlers.get(number)):
                if function is not None:
                    self._users.setdefault(function & -_PAGE, set()).add(number)

    def choose(self, route: Route) -> Place:
        """The place for one number, by the order in this module's description."""
        reasons: list[str] = []
        best = self._best_private(route, reasons)
        if best is not None and best.cost is Cost.FREE:
            return self._at(route, best, reasons)
        if route.reads:
            entry = route.reads[-1]
            reasons.append(f"only this number reads the table entry at {entry.address:#x}")
            if not self._machine.no_watching:
                return self._at_table(route, entry, best, reasons)
            reasons.append(f"that entry is not watched: {self._machine.no_watching}")
        if best is not None:
            return self._at(route, best, reasons)
        return self._merged(route, reasons) or self._at_dispatcher(route, reasons)

    def _best_private(self, route: Route, reasons: list[str]) -> _Candidate | None:
        starts = [
            *route.private,
            *([route.callee] if route.callee is not None and route.is_callee_private else []),
        ]
        if not starts:
            reasons.append(_why_not_private(route))
            return None
        candidates = [self._candidate(route, start) for start in (*self._wrapped_handler(route), *starts)]
        # min() keeps the first of equals: the earliest on the number's path.
        ranking = list(Cost)
        best = min(candidates, key=lambda c: (ranking.index(c.cost), c.start is None))
        reasons.append(f"only this number reaches {best.address:#x}")
        reasons.append(f"{best.address & -_PAGE:#x}: {self._describe_page(route, best)}")
        return best

    def _wrapped_handler(self, route: Route) -> list[int]:
        """The handler, if this number's own callee does nothing but go there."""
        handler = self._handlers.get(route.number)
        if handler is None or not route.is_callee_private or self._routes.keys_at(handler):
            return []
        return [handler] if self._routes.leads_straight(route.number, handler) else []

    def _candidate(self, route: Route, start: int) -> _Candidate:
        body = self._first_line(start)
        is_function = body is not None or start in (route.callee, self._handlers.get(route.number))
        if body is None or not self._routes.is_straight(route.number, start, body):
            body = start
        return _Candidate(body, start if is_function else None, self._cost_of(route, body))

    def _cost_of(self, route: Route, address: int) -> Cost:
        if not self._machine.pages_cost:
            return Cost.FREE
        page = address & -_PAGE
        if page in self._dispatcher_pages:
            return Cost.SHARED_PAGE
        return Cost.SHARED_WITH_CALLS if self._users.get(page, set()) - {route.number} else Cost.FREE

    def _describe_page(self, route: Route, candidate: _Candidate) -> str:
        match candidate.cost:
            case Cost.FREE if not self._machine.pages_cost:
                return "the CPU runs a page with a breakpoint as fast as any other"
            case Cost.FREE:
                return "no other call runs through this page, so it costs nothing until it hits"
            case Cost.SHARED_PAGE:
                return "the entry path runs through this page too, one instruction at a time while this is set"
            case _:
                others = sorted(self._users[candidate.address & -_PAGE] - {route.number})
                names = ", ".join("unknown numbers" if number == UNKNOWN else str(number) for number in others)
                return f"this page is also run by {names}, which get slower while this is set"

    def _at(self, route: Route, candidate: _Candidate, reasons: list[str]) -> Place:
        numbers = frozenset({route.number})
        return self._place(route, PlaceKind.ADDRESS, candidate, numbers, reasons)

    def _at_table(self, route: Route, entry: TableRead, best: _Candidate | None, reasons: list[str]) -> Place:
        if best is None:
            address = self._rarest_first(route)[0]
            best = _Candidate(address, None, Cost.FREE)
            reasons.append(f"after the read it stops at {address:#x}")
        numbers = self._routes.keys_at(best.address)
        free = _Candidate(best.address, best.start, Cost.FREE)
        return self._place(
            route, PlaceKind.TABLE_ENTRY, free, numbers or frozenset({route.number}), reasons, entry
        )

    def _merged(self, route: Route, reasons: list[str]) -> Place | None:
        """The address that the fewest numbers reach of those where the number can still be told."""
        for address in self._rarest_first(route):
            numbers = self._routes.keys_at(address)
            if len(numbers) >= len(self._routes):
                return None
            share = f"{address:#x} is reached by {len(numbers)} of {len(self._routes)} kinds of call"
            cost = Cost.STOP_PER_MERGED_CALL if len(numbers) > 1 else Cost.SHARED_PAGE
            candidate = _Candidate(address, None, cost)
            place = self._place(route, PlaceKind.ADDRESS, candidate, numbers, [*reasons, share])
            if place.number_at is not None:
                return place
        return None

    def _rarest_first(self, route: Route) -> list[int]:
        starts = self._routes.common_starts(route.number)
        starts.reverse()  # later ones first among equals: closer to what the call does
        return sorted(starts, key=lambda start: len(self._routes.keys_at(start)))

    def _at_dispatcher(self, route: Route, reasons: list[str]) -> Place:
        reasons.append(f"the number is compared at the dispatcher, {self._entry.address:#x}, on every call")
        arguments = (*self._entry.arguments, *(None,) * 6)[:6]
        return Place(
            route.number,
            PlaceKind.DISPATCHER,
            self._entry.address,
            Cost.STOP_PER_CALL,
            frozenset(self._routes),
            self._entry.number,
            arguments,
            return_slot=0,
            reasons=tuple(reasons),
        )

    def _place(
        self,
        route: Route,
        kind: PlaceKind,
        candidate: _Candidate,
        numbers: frozenset[int],
        reasons: list[str],
        entry: TableRead | None = None,
    ) -> Place:
        by_number = {number: self._routes.snapshots(number, candidate.address) for number in numbers}
        here = [run for runs in by_number.values() for run in runs]
        snapshots = [snapshot for _number, snapshot in here]
        caller_slot, callers = self._callers(route, candidate)
        return Place(
            route.number,
            kind,
            candidate.address,
            candidate.cost,
            numbers,
            self._locate_number(here) if _needs_number(numbers) and all(by_number.values()) else None,
            tuple(self._locate_argument(snapshots, index) for index in range(6)),
            return_slot=snapshots[0].return_slot if snapshots else 0,
            caller_slot=caller_slot,
            callers=callers,
            entry=entry,
            reasons=tuple(reasons),
        )

    def _callers(self, route: Route, candidate: _Candidate) -> tuple[int | None, frozenset[int | None]]:
        """Where the function's return address is at the stop, and what it may be."""
        if candidate.start is None:
            return None, frozenset()
        starts = [snapshot for _run, snapshot in self._routes.snapshots(route.number, candidate.start)]
        stops = [snapshot for _run, snapshot in self._routes.snapshots(route.number, candidate.address)]
        if not starts or not stops:
            return None, frozenset()
        slots = {
            first.registers["rsp"] - last.registers["rsp"] for first, last in zip(starts, stops, strict=False)
        }
        words = {None if s.is_dispatcher_return(s.stack[0]) else s.stack[0] for s in starts}
        return (slots.pop(), frozenset(words)) if len(slots) == 1 else (None, frozenset())

    def _locate_number(self, here: list[tuple[int, Snapshot]]) -> Location | None:
        """A place that holds its own number in every run that comes by."""
        return _first_common([set(s.locate(run)) | self._in_frame(s, self._entry.number) for run, s in here])

    def _locate_argument(self, snapshots: list[Snapshot], index: int) -> Location | None:
        held = [set(snapshot.locate(ARGUMENT_VALUES[index])) for snapshot in snapshots]
        if index < len(self._entry.arguments):
            where = self._entry.arguments[index]
            held = [known | self._in_frame(s, where) for known, s in zip(held, snapshots, strict=True)]
        return _first_common(held)

    def _in_frame(self, snapshot: Snapshot, original: Location) -> set[Location]:
        return set(snapshot.locate_frame(original.offset)) if isinstance(original, InFrame) else set()


def _needs_number(numbers: frozenset[int]) -> bool:
    """Whether a stop alone does not tell the number. (One run cannot show where it is: 0 and 1 are everywhere.)"""
    return len(numbers) > 1 or UNKNOWN in numbers


def _first_common(held: list[set[Location]]) -> Location | None:
    common = set.intersection(*held) if held else set()
    # Registers before stack slots, in an order that does not change from run to run.
    return min(common, key=lambda where: (type(where).__name__ != "InRegister", repr(where)), default=None)


def _why_not_private(route: Route) -> str:
    others = sorted(route.shared_with - {UNKNOWN})
    names = [str(number) for number in others[:8]] + (["more"] if len(others) > 8 else [])
    names += ["every number that the table lacks"] if UNKNOWN in route.shared_with else []
    if names:
        return f"its code is merged with that of {', '.join(names)}"
    return f"no address is reached by it alone (its run ended with {route.ending.value})"


def _has_code(memory: ReadableMemory, code: Mapping[Block, bytes]) -> bool:
    try:
        return all(memory.read(block.start, len(data)) == data for block, data in code.items())
    except MemoryFault:
        return False
