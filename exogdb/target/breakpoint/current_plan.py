"""The plan for the kernel that runs now, or what will make one at its first system call."""

from collections.abc import Callable

from exogdb.abi.choice import Choice
from exogdb.abi.dispatch.place import Place, PlaceKind, combine
from exogdb.abi.dispatch.route import UNKNOWN
from exogdb.abi.numbers import NumberTable
from exogdb.errors import ExoError, UnavailableError
from exogdb.target.breakpoint.hidden_breakpoints import Provisional
from exogdb.target.breakpoint.planning import SyscallPlan, read_plan
from exogdb.target.cpus import Cpu, all_cpus
from exogdb.target.numbers import read_number_table
from exogdb.target.session import require_guest
from exogdb.target.symbols import find_addresses

__all__ = ["CurrentPlan"]

_DISPATCHERS = ("syscall_dispatch", "syscall_rust_handler", "do_syscall_64")


class CurrentPlan:
    """`plan` is None while no kernel runs whose path is known.

    A `Provisional` breakpoint waits at the dispatcher then; `at_first_call` is called with the CPU that comes by.
    """

    def __init__(self, at_first_call: Callable[[Cpu], None]) -> None:
        self.plan: SyscallPlan | None = None
        self._provisional: Provisional | None = None
        self._at_first_call = at_first_call

    def make(self, numbers: frozenset[int]) -> None:
        """Plan these numbers and the table's with the selected CPU, or with another if that one's state is poor.

        :raise ExoError: that cannot be done, nor is there a dispatcher to wait at.
        """
        try:
            self.make_on(require_guest().cpu, numbers)
        except UnavailableError:
            self.wait()
        except ExoError:
            if self._dispatcher() is None:
                raise
            self.wait()
        else:
            self._drop_provisional()
            if self.plan is not None and _is_poor(self.plan):
                self._ask_others(numbers)

    def make_on(self, cpu: Cpu, numbers: frozenset[int]) -> None:
        """Plan these numbers and the table's with `cpu`. Raises as `read_plan`."""
        self.plan = read_plan(cpu, numbers)

    def wait(self) -> None:
        """No plan until the next call, or until `make` is asked again."""
        self.plan = None
        self._stand_by()

    def forget(self) -> None:
        """The kernel is gone."""
        self.plan = None
        self._drop_provisional()

    def table(self) -> NumberTable:
        """The number table as the user's settings have it now, which may be another than when the plan was made.

        :raise UsageError: a file that the user named cannot be read, or is no such file.
        """
        address = self.plan.dispatcher.address if self.plan is not None else None
        return read_number_table([address] if address is not None else [])

    def places_of(self, choice: Choice) -> list[Place]:
        """The plan's places for a choice, by number, `UNKNOWN` last; empty without a plan."""
        if self.plan is None:
            return []
        places = self.plan.places
        numbers = [number for number in places if number != UNKNOWN and number in choice.numbers]
        numbers += [UNKNOWN] if choice.unknown else []
        return combine([places[number] for number in numbers], is_every_call=len(numbers) == len(places))

    def return_addresses(self) -> set[int]:
        """What a breakpoint on returns must see: calls that return, and where no stack is watched, that begin."""
        if self.plan is None:
            return set()
        address = self.plan.dispatcher.address
        begin = {address} if address is not None and not self.plan.may_watch else set()
        return {self.plan.dispatcher.return_address} | begin

    def _ask_others(self, numbers: frozenset[int]) -> None:
        """An idle CPU's state may not lead through the dispatcher; another's, or the next call's, will."""
        for cpu in all_cpus():
            plan = read_plan(cpu, numbers)
            if not _is_poor(plan):
                self.plan = plan
                return
        self._stand_by()

    def _stand_by(self) -> None:
        address = self._dispatcher()
        if address is not None and (self._provisional is None or not self._provisional.is_valid()):
            self._provisional = Provisional(address, self._at_first_call)

    def _dispatcher(self) -> int | None:
        if self.plan is not None:
            return self.plan.dispatcher.address
        return next(iter(find_addresses(_DISPATCHERS).values()), None)

    def _drop_provisional(self) -> None:
        if self._provisional is not None and self._provisional.is_valid():
            self._provisional.retire()
        self._provisional = None


def _is_poor(plan: SyscallPlan) -> bool:
    """Whether most numbers could not be followed: the dispatcher went wrong before it compared anything."""
    places = [place for number, place in plan.places.items() if number != UNKNOWN]
    lost = [place for place in places if place.kind is PlaceKind.DISPATCHER]
    return len(lost) * 2 > len(places)
