"""Where to stop for a system-call number, at the lowest cost to the calls that are not wanted.

Stopping the virtual machine takes about 0.35 ms, a call that is left alone 0.2 us, so a breakpoint must be
somewhere that only the wanted number reaches. QEMU runs a page that holds a breakpoint one instruction at a
time, so it should also be in a page that no other call runs through. In this order:

1. an address that only this number reaches, in a page of its own: `free`
2. a read watchpoint on the number's own entry of a jump or handler table: `nearly free (watched table)`, for each
   load from the table's page leaves the translated code (0.06 us); one more stop per hit
3. an address that only this number reaches, in a page that others run through
4. an address that few numbers reach, the number being checked there
5. the dispatcher's first instruction, the number being checked there: `one stop per system call`

`Machine` says where the second is not to be had, and where pages do not matter.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from exogdb.abi.dispatch.number_flow import NumberFlow
from exogdb.abi.dispatch.page_use import PAGE, PageUse
from exogdb.abi.dispatch.place import Cost, Machine, Place, PlaceKind, Plan
from exogdb.abi.dispatch.route import UNKNOWN, Route, Routes
from exogdb.abi.dispatch.scene import Caller, Scenes
from exogdb.abi.dispatch.table_range import TableRanges
from exogdb.abi.dispatch.trace import DispatcherEntry, TableRead
from exogdb.abi.stub.location import Location

__all__ = ["FirstLine", "plan_places"]

FirstLine = Callable[[int], int | None]
"""For the first address of a function, where its body begins; None for any other address."""


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
    pages = PageUse(routes, entry, hot, handlers or {})
    planner = _Planner(routes, entry, pages, first_line, handlers or {}, machine or Machine())
    places = {number: planner.choose(route) for number, route in routes.items()}
    return Plan(places, routes.code(), routes.counters(), planner.find_arguments, planner.join_entries)


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
        pages: PageUse,
        first_line: FirstLine,
        handlers: Mapping[int, int],
        machine: Machine,
    ) -> None:
        self._machine = machine
        self._routes = routes
        self._entry = entry
        self._pages = pages
        self._scenes = Scenes(routes, entry)
        self.join_entries = TableRanges(self._scenes).join
        self._first_line = first_line
        self._handlers = handlers

    def choose(self, route: Route) -> Place:
        """The place for one number, by the order in this module's description."""
        reasons: list[str] = []
        if route.number == UNKNOWN and not self._routes.is_default_certain():
            reasons.append(
                "not every branch was seen both ways: the kernel may handle numbers that the table lacks"
            )
            return self._at_dispatcher(route, reasons)
        best = self._best_private(route, reasons)
        if route.number == UNKNOWN and best is not None:
            return self._at_default(route, best, reasons)
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

    def find_arguments(self, number: int, address: int) -> tuple[Location | None, ...]:
        """Where the arguments of `number` are at any address that its run passes."""
        return self._scenes.find(address, frozenset({number})).arguments

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
        who = "only numbers that the table lacks reach" if route.number == UNKNOWN else "only this number reaches"
        reasons.append(f"{who} {best.address:#x}")
        reasons.append(f"{best.address & -PAGE:#x}: {self._describe_page(route, best)}")
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
        return self._pages.cost_of(route.number, address) if self._machine.pages_cost else Cost.FREE

    def _describe_page(self, route: Route, candidate: _Candidate) -> str:
        match candidate.cost:
            case Cost.FREE if not self._machine.pages_cost:
                return "the CPU runs a page with a breakpoint as fast as any other"
            case Cost.FREE:
                return "no other call runs through this page, so it costs nothing until it hits"
            case Cost.SHARED_PAGE:
                return "the entry path runs through this page, too: a breakpoint in it makes every call slower"
            case _:
                others = self._pages.describe_others(route.number, candidate.address)
                return f"this page is also run by {others}, which a breakpoint in it makes slower"

    def _at(self, route: Route, candidate: _Candidate, reasons: list[str]) -> Place:
        numbers = frozenset({route.number})
        return self._place(route, PlaceKind.ADDRESS, candidate, numbers, reasons)

    def _at_default(self, route: Route, candidate: _Candidate, reasons: list[str]) -> Place:
        """Where only numbers that the table lacks come by, if something says there which one it is."""
        place = self._at(route, candidate, reasons)
        if place.number_at is not None or place.is_number_saved or place.held_at is not None:
            return place
        reasons.append("nothing holds the number there any more")
        return self._at_dispatcher(route, reasons)

    def _at_table(self, route: Route, entry: TableRead, best: _Candidate | None, reasons: list[str]) -> Place:
        if best is None:
            address = self._rarest_first(route)[0]
            best = _Candidate(address, None, Cost.WATCHED_TABLE)
            reasons.append(f"after the read it stops at {address:#x}")
        numbers = self._routes.keys_at(best.address) or frozenset({route.number})
        watched = replace(best, cost=Cost.WATCHED_TABLE)
        return self._place(route, PlaceKind.TABLE_ENTRY, watched, numbers, reasons, entry)

    def _merged(self, route: Route, reasons: list[str]) -> Place | None:
        """The address that the fewest numbers reach of those where the number can still be told."""
        for address in self._rarest_first(route):
            numbers = self._routes.keys_at(address)
            if len(numbers) >= len(self._routes):
                return None
            # What one number alone reaches and is not its own is behind the point where its run joins others.
            if self._scenes.find_number(address, numbers) is None:
                continue
            share = f"{address:#x} is reached by {len(numbers)} of {len(self._routes)} kinds of call"
            candidate = _Candidate(address, None, Cost.STOP_PER_MERGED_CALL)
            return self._place(route, PlaceKind.ADDRESS, candidate, numbers, [*reasons, share])
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
        start = candidate.start
        scene = self._scenes.find(candidate.address, numbers)
        caller = Caller()
        if start is not None:
            caller = self._scenes.find_caller(route.number, start, candidate.address)
        is_told = scene.number_at is not None or scene.is_saved
        held_at = None if is_told else self._find_held(route, candidate, caller)
        return Place(
            route.number,
            kind,
            candidate.address,
            candidate.cost,
            numbers,
            scene.number_at,
            scene.arguments,
            scene.return_slot,
            caller.slot,
            caller.callers,
            entry,
            tuple(reasons),
            scene.is_saved,
            held_at,
        )

    def _find_held(self, route: Route, candidate: _Candidate, caller: Caller) -> Location | None:
        """Where the dispatcher's own code keeps the number when `route` comes by `candidate`."""
        if self._flow is None:
            return None
        start = candidate.start if caller.slot is not None else None
        held = self._flow.find(candidate.address, start, caller.callers)
        return self._scenes.confirm(candidate.address, route.number, held)

    @cached_property
    def _flow(self) -> NumberFlow | None:
        return self._routes.follow_number(self._entry, frozenset(self._handlers.values()))


def _why_not_private(route: Route) -> str:
    others = sorted(route.shared_with - {UNKNOWN})
    names = [str(number) for number in others[:8]] + (["more"] if len(others) > 8 else [])
    names += ["every number that the table lacks"] if UNKNOWN in route.shared_with else []
    if names:
        return f"its code is merged with that of {', '.join(names)}"
    return f"no address is reached by it alone (its run ended with {route.ending.value})"
