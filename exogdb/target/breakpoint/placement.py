"""Which addresses the breakpoints on system calls stand for.

There is one `Placement` for one GDB. It has a plan while a kernel runs whose path is known (`current_plan`);
before that, and after the connection or the symbol file went away, breakpoints are pending. `gdb_events` tells it
what comes and goes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import gdb

from exogdb.abi.choice import Choice, parse_choice, spell_number
from exogdb.abi.dispatch.place import Place, PlaceKind
from exogdb.abi.dispatch.request import PROVIDER, Request, squeeze_expression
from exogdb.abi.dispatch.table_range import TableRange
from exogdb.abi.numbers import NumberTable
from exogdb.errors import ExoError, UsageError
from exogdb.target.breakpoint.breakpoints import Catch, Setting, SyscallBreakpoint, make_condition
from exogdb.target.breakpoint.condition import check_condition
from exogdb.target.breakpoint.current_plan import CurrentPlan
from exogdb.target.breakpoint.hidden_breakpoints import TableWatch, delete_retired
from exogdb.target.breakpoint.loaded_probes import LoadedProbes, quietly
from exogdb.target.breakpoint.planning import SyscallPlan
from exogdb.target.breakpoint.probe_file import Probe
from exogdb.target.cpus import Cpu
from exogdb.target.current_process import forget_layouts

__all__ = ["PLACEMENT", "Placement"]

_USUAL = ""


class Placement:
    """All breakpoints on system calls, and the plan that they follow."""

    def __init__(self) -> None:
        self._current = CurrentPlan(self._plan_at_first_call)
        self._catches: dict[int, Catch] = {}
        self._watches: dict[TableRange, TableWatch] = {}
        self._served: set[int] = set()
        """The rows that were enabled when the watchpoints were last set."""
        self._probes = LoadedProbes()
        self._is_placing = False
        self.is_showing_all = False
        """Whether `show_places` is due once `show_all` has served its purpose, or failed to."""

    @property
    def plan(self) -> SyscallPlan | None:
        """The plan for the kernel that runs; None while there is none."""
        return self._current.plan

    def table(self) -> NumberTable:
        """The number table as the user's settings have it now. Raises as `CurrentPlan.table`."""
        return self._current.table()

    def rows(self) -> list[tuple[int, Catch]]:
        """The numbers of all rows, in order, and what decides for each."""
        return sorted(self._catches.items())

    def catches(self) -> list[Catch]:
        """Those whose rows exist, by number."""
        return [catch for _, catch in self.rows()]

    def find(self, number: int) -> Catch | None:
        """What decides for row `number`; None for any other breakpoint."""
        return self._catches.get(number)

    def add(self, request: Request, *, temporary: bool = False) -> Catch:
        """A new breakpoint for `request`, placed now if the guest can be asked, pending otherwise.

        Sets breakpoints in the guest when it next runs; nothing else in it changes.

        :raise UsageError: the choice names no system call, or the condition is no expression.
        """
        delete_retired()
        self._current.make(self._numbers(request))
        request = self._spell(request)
        if request.condition and self.plan is not None:
            check_condition(request.condition, self._stops_of(request))
        request = replace(request, condition=squeeze_expression(request.condition))
        try:
            self._load_probes([*self._requests(), request])
        except ExoError:
            if any(each.setting is None for each in self.catches()):
                self._current.wait()  # others have not been placed either
            raise
        catch = Catch(request)
        quietly(lambda: self.take_in(SyscallBreakpoint(catch, temporary=temporary), catch))
        self._give_settings()
        return catch

    def replan(self, cpu: Cpu | None = None) -> None:
        """Place every breakpoint anew: with a plan if `cpu` (or any) can tell one, provisionally if not."""
        if self._is_placing or not self._requests():
            return
        self._is_placing = True
        try:
            if cpu is None:
                self._current.make(self._numbers())
            else:
                self._current.make_on(cpu, self._numbers())
            self._load_probes(self._requests())
            self._give_settings()
        except ExoError:
            # Nothing is placed by that plan. Not tried again at every call.
            self._current.forget() if cpu is not None else self._current.wait()
            raise
        finally:
            self._is_placing = False

    def forget(self) -> None:
        """The kernel is gone: its plan, its watchpoints and the calls in progress are, too."""
        self._current.forget()
        forget_layouts()
        for watch in self._watches.values():
            if watch.is_valid():
                watch.retire()
        self._watches.clear()
        for each in self.catches():
            if each.setting is not None and each.setting.places:
                each.is_meant = each.is_enabled
            each.clear()
            each.setting = None

    def forget_calls(self) -> None:
        """The guest is another one now, with the same kernel: no call is in progress that was."""
        for each in self.catches():
            each.clear()
            each.show_places()

    def show_all(self) -> None:
        """Enable every location, as GDB makes them: what `save breakpoints` writes can be read in any GDB then."""
        self.is_showing_all = True
        for catch in self.catches():
            catch.show_all()

    def show_places(self) -> None:
        """Enable the locations that may be hit now, and only these."""
        self.is_showing_all = False
        for catch in self.catches():
            catch.show_places()

    def take_in(self, row: gdb.Breakpoint, catch: Catch) -> None:
        """`catch` decides for `row` from now on."""
        catch.row = row
        self._catches[row.number] = catch
        _ask_us(row)

    def drop(self, row: gdb.Breakpoint) -> None:
        """The row is deleted."""
        catch = self._catches.pop(row.number, None)
        if catch is not None:
            catch.clear()
            self.sync()

    def follow(self, row: gdb.Breakpoint) -> None:
        """The row has changed: it was enabled, say, or one location of it. A hit is a change, too."""
        if row.number not in self._catches:
            return
        if self._catches[row.number].locations.follow(row):
            self._catches[row.number].show_places()
        # `condition N EXPR` is meant on top of what this breakpoint is for.
        if _ask_us(row) or self._is_placing or row.enabled == (row.number in self._served):
            return
        self._catches[row.number].is_meant = row.enabled
        if not row.enabled:
            self._catches[row.number].clear()  # what calls do meanwhile goes unseen
            self._catches[row.number].show_places()
        self.sync()

    def should_stop(self, number: int) -> bool:
        """What the condition of row `number` asks."""
        catch = self._catches.get(number)
        if catch is None:
            return False
        catch.hit = None  # of an earlier stop: GDB reports every row at an address, also those that say no
        return catch.stop()

    def is_own_file(self, objfile: gdb.Objfile) -> bool:
        """Whether GDB has just loaded probes, and no kernel."""
        return self._probes.holds(objfile)

    @property
    def is_unloading(self) -> bool:
        """Whether GDB reports probes as gone just now, and no kernel."""
        return self._probes.is_unloading

    def sync(self) -> None:
        """Have exactly the watchpoints that an enabled breakpoint needs."""
        self._served = {number for number, each in self._catches.items() if each.is_enabled}
        wanted = set(self.plan.places.ranges(self._wanted_entries())) if self.plan is not None else set()
        for entries in wanted - self._watches.keys():
            self._watches[entries] = TableWatch(entries, self._tell)
        for entries, watch in self._watches.items():
            watch.switch(entries in wanted)

    def _tell(self, cpu: Cpu, number: int) -> None:
        for each in self.catches():
            each.expect(cpu, number)

    def choice_of(self, request: Request, table: NumberTable | None = None) -> Choice:
        """What the request's words choose from the table; nothing if they are those of another kernel's table.

        Looking for the table takes milliseconds: whoever has many requests looks once.
        """
        try:
            return parse_choice(request.choice, self.table() if table is None else table)
        except UsageError:
            return Choice(request.choice, frozenset(), unknown=False, known=frozenset())

    def _spell(self, request: Request) -> Request:
        """The choice without needless blanks, one number by its name if it can be: a location of the usual ones.

        :raise UsageError: the choice names no system call.
        """
        table = self.table()
        choice = parse_choice(request.choice, table)
        single = choice.single
        return replace(request, choice=choice.text if single is None else spell_number(single, table))

    def _requests(self) -> list[Request]:
        return [each.request for each in self.catches()]

    def _numbers(self, *more: Request) -> frozenset[int]:
        try:
            table = self.table()
        except UsageError:
            return frozenset()
        return frozenset(n for r in (*self._requests(), *more) for n in self.choice_of(r, table).numbers)

    def _plan_at_first_call(self, cpu: Cpu) -> None:
        self.replan(cpu)
        for each in self.catches():
            each.see_first_call(cpu)

    def _wanted_entries(self) -> Iterator[Place]:
        for each in self.catches():
            if each.is_enabled and each.setting is not None:
                yield from (place for place in each.setting.places if place.kind is PlaceKind.TABLE_ENTRY)

    def _give_settings(self) -> None:
        for each in self.catches():
            if self.plan is None:
                each.setting = None
                continue
            choice, was_pending = self.choice_of(each.request), each.setting is None
            each.setting = _to_setting(self.plan, choice, tuple(self._current.places_of(choice)))
            if each.row is not None and each.row.is_valid():
                _ask_us(each.row)
                if was_pending and each.is_meant and not each.row.pending:
                    each.row.enabled = True
            each.show_places()
        self.sync()

    def _load_probes(self, requests: Iterable[Request]) -> None:
        """Tell GDB what the names in the breakpoints' locations stand for.

        The names that need no options are all in one file that stays as long as the plan, used or not:
        `break -probe syscall:NAME` knows them.
        """
        if self.plan is None:
            return  # a row that loses all its locations would be disabled; what stands there is never a stop
        table = self.table()
        wanted = {_USUAL: self._usual_probes(table)}
        known = {probe.name for probe in wanted[_USUAL]}
        for request in requests:
            if request.probe_name not in known:
                wanted[request.probe_name] = self._probes_of(request, table)
        self._probes.load(wanted, before_change=self.show_all)

    def _usual_probes(self, table: NumberTable) -> tuple[Probe, ...]:
        """Every call by its name, group and keyword of the grammar, for calls and for their returns."""
        words = [spell_number(entry.number, table) for entry in table] + [f"%{group}" for group in table.groups]
        requests = [Request(word, on_return=back) for word in (*words, "all", "unknown") for back in (False, True)]
        return tuple(probe for request in requests for probe in self._probes_of(request, table))

    def _stops_of(self, request: Request) -> set[int]:
        """Where the user stands at a stop."""
        if self.plan is None:
            return set()
        if request.on_return:
            return {self.plan.dispatcher.return_address}
        return {place.address for place in self._current.places_of(self.choice_of(request))}

    def _probes_of(self, request: Request, table: NumberTable) -> tuple[Probe, ...]:
        addresses = {place.address for place in self._current.places_of(self.choice_of(request, table))}
        if request.on_return:
            addresses |= self._current.return_addresses()
        return tuple(Probe(PROVIDER, request.probe_name, address) for address in sorted(addresses))


def _to_setting(plan: SyscallPlan, choice: Choice, places: tuple[Place, ...]) -> Setting:
    address, back = plan.dispatcher.address, plan.dispatcher.return_address
    assert address is not None  # a plan was made from there
    plans = plan.places
    return Setting(choice, places, plan.path, address, back, plans.counters, plan.may_watch, plans.find_arguments)


def _ask_us(row: gdb.Breakpoint) -> bool:
    """Make the row's condition call its `Catch`; says whether it had to be changed (and was reported again).

    Not while it is pending: GDB 13 would take a missing location for an error then, and disable the row.
    """
    condition = make_condition(row.number, row.condition)
    if row.pending or row.condition == condition:
        return False
    row.condition = condition
    return True


PLACEMENT = Placement()
