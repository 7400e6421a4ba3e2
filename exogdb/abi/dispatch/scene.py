"""What a CPU that comes by an address tells: where its number, its arguments and its return address are then.

Found by emulating every number that comes by, and keeping what all of these runs have in common. Every run is made
once, whoever asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from exogdb.abi.dispatch.route import UNKNOWN, Routes
from exogdb.abi.dispatch.trace import ARGUMENT_VALUES, DispatcherEntry, Snapshot, TableRead
from exogdb.abi.stub.location import InFrame, InRegister, Location

__all__ = ["Caller", "Scene", "Scenes", "first_of"]

# System V ABI for x86-64, 3.2.3: where integer parameters are at a function's first instruction.
_PARAMETERS = tuple(map(InRegister, ("rdi", "rsi", "rdx", "rcx", "r8", "r9")))
_Run = tuple[int, Snapshot]


@dataclass(frozen=True)
class Scene:
    """Where things are at one address; stack offsets count from rsp there.

    `number_at` is None where the number needs no telling, or nothing tells it; `arguments` are the six, None where
    one is gone; `return_slot` is that of the dispatcher's return address, None where every call has another.
    `is_saved`: the stub's copy of the number is still what it was.
    """

    number_at: Location | None
    arguments: tuple[Location | None, ...]
    return_slot: int | None
    is_saved: bool


@dataclass(frozen=True)
class Caller:
    """Where a function's return address is, and what it may be: None in `callers` is the dispatcher's own."""

    slot: int | None = None
    callers: frozenset[int | None] = frozenset()


class Scenes:
    """The scenes of one dispatcher, each made when it is first asked for."""

    def __init__(self, routes: Routes, entry: DispatcherEntry) -> None:
        self._routes = routes
        self._entry = entry
        self._runs: dict[tuple[int, int], list[_Run]] = {}
        self._numbers_at: dict[tuple[int, frozenset[int]], Location | None] = {}

    def find(self, address: int, numbers: frozenset[int]) -> Scene:
        """The scene at `address` if only `numbers` come by."""
        runs = [run for number in numbers for run in self._at(number, address)]
        snapshots = [snapshot for _run, snapshot in runs]
        return Scene(
            self.find_number(address, numbers),
            tuple(self._find_argument(snapshots, index) for index in range(6)),
            _common_slot(snapshots),
            bool(runs) and all(snapshot.saved == run for run, snapshot in runs),
        )

    def find_number(self, address: int, numbers: frozenset[int]) -> Location | None:
        """Where the number itself is in every run of `numbers`; None if nowhere, or if a stop alone tells it."""
        key = address, numbers
        if key not in self._numbers_at:
            # One run cannot show where its number is: 0 and 1 are everywhere.
            is_told = len(numbers) == 1 and UNKNOWN not in numbers
            self._numbers_at[key] = None if is_told else self._find_number(address, numbers)
        return self._numbers_at[key]

    def confirm(self, address: int, number: int, where: Location | None) -> Location | None:
        """`where` if the number is there in every run of `number` that comes by, as it should be; else None."""
        runs = self._at(number, address)
        is_there = bool(runs) and all(where in snapshot.locate(run) for run, snapshot in runs)
        return where if is_there else None

    def find_caller(self, number: int, start: int, address: int) -> Caller:
        """For a stop at `address` in the function that begins at `start`."""
        starts = [snapshot for _run, snapshot in self._at(number, start)]
        stops = [snapshot for _run, snapshot in self._at(number, address)]
        pairs = list(zip(starts, stops, strict=False))
        if not pairs or any(first.is_depth_known != last.is_depth_known for first, last in pairs):
            return Caller()
        slots = {first.registers["rsp"] - last.registers["rsp"] for first, last in pairs}
        words = {None if s.is_dispatcher_return(s.stack[0]) else s.stack[0] for s in starts}
        return Caller(slots.pop(), frozenset(words)) if len(slots) == 1 else Caller()

    def behind(self, number: int, read: TableRead) -> tuple[int, set[Location]] | None:
        """Where a CPU stands that has just made `read` for `number`, and all places that hold the number then."""
        found = self._routes.behind(number, read)
        if found is None:
            return None
        address, snapshot = found
        return address, self._holders(number, snapshot)

    def _at(self, number: int, address: int) -> list[_Run]:
        key = number, address
        if key not in self._runs:
            self._runs[key] = self._routes.snapshots(number, address)
        return self._runs[key]

    def _find_number(self, address: int, numbers: Iterable[int]) -> Location | None:
        common: set[Location] | None = None
        for number in sorted(numbers):
            runs = self._at(number, address)
            for run, snapshot in runs:
                held = self._holders(run, snapshot)
                common = held if common is None else common & held
            if not runs or not common:
                return None  # the others need not be run
        return first_of(common or set(), (self._entry.number,))

    def _holders(self, run: int, snapshot: Snapshot) -> set[Location]:
        return set(snapshot.locate(run)) | _in_frame(snapshot, self._entry.number)

    def _find_argument(self, snapshots: list[Snapshot], index: int) -> Location | None:
        where = self._entry.arguments[index] if index < len(self._entry.arguments) else None
        held = [set(s.locate(ARGUMENT_VALUES[index])) | _in_frame(s, where) for s in snapshots]
        # What else holds it may be a copy that only this way of getting here has left.
        likely = (_PARAMETERS[index], *((where,) if where is not None else ()))
        return first_of(set.intersection(*held) if held else set(), likely)


def _common_slot(snapshots: Iterable[Snapshot]) -> int | None:
    slots = {snapshot.return_slot for snapshot in snapshots}
    return slots.pop() if len(slots) == 1 else None


def _in_frame(snapshot: Snapshot, original: Location | None) -> set[Location]:
    return set(snapshot.locate_frame(original.offset)) if isinstance(original, InFrame) else set()


def first_of(common: set[Location], likely: tuple[Location, ...] = ()) -> Location | None:
    """One of `likely` if it is there, else always the same: a register before a stack slot; None if empty."""
    found = next((where for where in likely if where in common), None)
    return found or min(common, key=lambda where: (not isinstance(where, InRegister), repr(where)), default=None)
