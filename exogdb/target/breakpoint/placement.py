"""Which addresses the breakpoints on system calls stand for, and keeping that true while kernels come and go.

There is one `Placement` for one GDB. It has a plan while a kernel runs whose path is known; before that, and after
the connection or the symbol file went away, breakpoints are pending and a `Provisional` one waits at the
dispatcher for the first call.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import gdb

from exogdb.abi.choice import Choice, parse_choice
from exogdb.abi.dispatch.place import Place, PlaceKind, combine
from exogdb.abi.dispatch.request import PROVIDER, Request, decode_location, squeeze_expression
from exogdb.abi.dispatch.route import UNKNOWN
from exogdb.abi.dispatch.table_range import TableRange
from exogdb.abi.numbers import NumberTable
from exogdb.errors import ExoError, UnavailableError, UsageError
from exogdb.target.breakpoint.breakpoints import Catch, Setting, SyscallBreakpoint, make_condition
from exogdb.target.breakpoint.condition import check_condition
from exogdb.target.breakpoint.hidden_breakpoints import Provisional, TableWatch, delete_retired
from exogdb.target.breakpoint.loaded_probes import LoadedProbes, quietly
from exogdb.target.breakpoint.planning import SyscallPlan, read_plan
from exogdb.target.breakpoint.probe_file import Probe
from exogdb.target.cpus import Cpu, all_cpus
from exogdb.target.current_process import forget_layouts
from exogdb.target.numbers import read_number_table
from exogdb.target.session import require_guest
from exogdb.target.symbols import find_address

__all__ = ["PLACEMENT", "Placement"]

_USUAL = ""
_DISPATCHERS = ("syscall_dispatch", "syscall_rust_handler", "do_syscall_64")


class Placement:
    """All breakpoints on system calls, and the plan that they follow."""

    def __init__(self) -> None:
        self.plan: SyscallPlan | None = None
        self._catches: dict[int, Catch] = {}
        self._watches: dict[TableRange, TableWatch] = {}
        self._served: set[int] = set()
        """The rows that were enabled when the watchpoints were last set."""
        self._provisional: Provisional | None = None
        self._probes = LoadedProbes()
        self._is_placing = False

    def catches(self) -> list[Catch]:
        """Those whose rows exist, by number."""
        return [self._catches[number] for number in sorted(self._catches)]

    def find(self, number: int) -> Catch | None:
        """What decides for row `number`; None for any other breakpoint."""
        return self._catches.get(number)

    def table(self) -> NumberTable:
        """The number table as the user's settings have it now, which may be another than when the plan was made.

        :raise UsageError: a file that the user named cannot be read, or is no such file.
        """
        address = self.plan.dispatcher.address if self.plan is not None else None
        return read_number_table([address] if address is not None else [])

    def add(self, request: Request, *, temporary: bool = False) -> Catch:
        """A new breakpoint for `request`, placed now if the guest can be asked, pending otherwise.

        Sets breakpoints in the guest when it next runs; nothing else in it changes.

        :raise UsageError: the choice names no system call, or the condition is no expression.
        """
        delete_retired()
        self._try_to_plan(request)
        request = self._spell(request)
        if request.condition and self.plan is not None:
            check_condition(request.condition, self._stops_of(request))
        request = replace(request, condition=squeeze_expression(request.condition))
        self._load_probes([*self._requests(), request])
        catch = Catch(request)
        quietly(lambda: self._take_in(SyscallBreakpoint(catch, temporary=temporary), catch))
        self._give_settings()
        return catch

    def replan(self, cpu: Cpu | None = None) -> None:
        """Place every breakpoint anew: with a plan if `cpu` (or any) can tell one, provisionally if not."""
        if self._is_placing or not self._requests():
            return
        self._is_placing = True
        try:
            if cpu is None:
                self._try_to_plan(None)
            else:
                self.plan = read_plan(cpu, self._numbers())
            self._load_probes(self._requests())
            self._give_settings()
        finally:
            self._is_placing = False

    def forget(self) -> None:
        """The kernel is gone: its plan, its watchpoints and the calls in progress are, too."""
        self.plan = None
        forget_layouts()
        for watch in self._watches.values():
            if watch.is_valid():
                watch.retire()
        self._watches.clear()
        self._drop_provisional()
        for each in self.catches():
            each.clear()
            each.setting = None

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

    def places_of(self, choice: Choice) -> list[Place]:
        """The plan's places for a choice, by number, `UNKNOWN` last; empty without a plan."""
        if self.plan is None:
            return []
        places = self.plan.places
        numbers = [number for number in places if number != UNKNOWN and number in choice.numbers]
        numbers += [UNKNOWN] if choice.unknown else []
        return combine([places[number] for number in numbers], is_every_call=len(numbers) == len(places))

    def choice_of(self, request: Request, table: NumberTable | None = None) -> Choice:
        """What the request's words choose from the table; nothing if they are those of another kernel's table.

        Looking for the table takes milliseconds: whoever has many requests looks once.
        """
        try:
            return parse_choice(request.choice, self.table() if table is None else table)
        except UsageError:
            return Choice(request.choice, frozenset(), unknown=False, known=frozenset())

    def _spell(self, request: Request) -> Request:
        """The choice without needless blanks, one number by its name: a location that is one of the usual ones.

        :raise UsageError: the choice names no system call.
        """
        table = self.table()
        choice = parse_choice(request.choice, table)
        entry = table.find(choice.single) if choice.single is not None else None
        return replace(request, choice=entry.name if entry is not None else choice.text)

    def _requests(self) -> list[Request]:
        return [each.request for each in self.catches()]

    def _numbers(self, *more: Request) -> frozenset[int]:
        try:
            table = self.table()
        except UsageError:
            return frozenset()
        return frozenset(n for r in (*self._requests(), *more) for n in self.choice_of(r, table).numbers)

    def _try_to_plan(self, request: Request | None) -> None:
        more = [request] if request is not None else []
        try:
            session = require_guest()
            self.plan = read_plan(session.cpu, self._numbers(*more))
        except UnavailableError:
            self._fall_back()
        except ExoError:
            if self._dispatcher() is None:
                raise
            self._fall_back()
        else:
            self._drop_provisional()
            if _is_poor(self.plan):
                self._plan_others(more)

    def _plan_others(self, more: list[Request]) -> None:
        """An idle CPU's state may not lead through the dispatcher; another's, or the next call's, will."""
        for cpu in all_cpus():
            plan = read_plan(cpu, self._numbers(*more))
            if not _is_poor(plan):
                self.plan = plan
                return
        self._stand_by()

    def _fall_back(self) -> None:
        self.plan = None
        self._stand_by()

    def _stand_by(self) -> None:
        address = self._dispatcher()
        if address is not None and (self._provisional is None or not self._provisional.is_valid()):
            self._provisional = Provisional(address, self._plan_at_first_call)

    def _plan_at_first_call(self, cpu: Cpu) -> None:
        self.replan(cpu)
        for each in self.catches():
            each.see_first_call(cpu)

    def _dispatcher(self) -> int | None:
        if self.plan is not None:
            return self.plan.dispatcher.address
        return next((found for name in _DISPATCHERS if (found := find_address(name)) is not None), None)

    def _drop_provisional(self) -> None:
        if self._provisional is not None and self._provisional.is_valid():
            self._provisional.retire()
        self._provisional = None

    def _wanted_entries(self) -> Iterator[Place]:
        for each in self.catches():
            if each.is_enabled and each.setting is not None:
                yield from (place for place in each.setting.places if place.kind is PlaceKind.TABLE_ENTRY)

    def _give_settings(self) -> None:
        for each in self.catches():
            if self.plan is None:
                each.setting = None
                continue
            choice = self.choice_of(each.request)
            each.setting = _to_setting(self.plan, choice, tuple(self.places_of(choice)))
            if each.row is not None and each.row.is_valid():
                _ask_us(each.row)
            each.show_places()
        self.sync()

    def _load_probes(self, requests: Iterable[Request]) -> None:
        """Tell GDB what the names in the breakpoints' locations stand for.

        The names that need no options are all in one file that stays as long as the plan, used or not:
        `break -probe syscall:NAME` knows them.
        """
        if self.plan is None:
            return  # a row that loses all its locations would be disabled; what stands there is never a stop
        wanted = {_USUAL: self._usual_probes()}
        known = {probe.name for probe in wanted[_USUAL]}
        for request in requests:
            if request.probe_name not in known:
                wanted[request.probe_name] = self._probes_of(request)
        self._probes.load(wanted, before_change=self._show_all)

    def _show_all(self) -> None:
        for catch in self.catches():
            catch.show_all()

    def _usual_probes(self) -> tuple[Probe, ...]:
        """Every name, group and keyword of the grammar, for calls and for their returns."""
        table = self.table()
        words = [entry.name for entry in table] + [f"%{group}" for group in table.groups]
        requests = [Request(word, on_return=back) for word in (*words, "all", "unknown") for back in (False, True)]
        return tuple(probe for request in requests for probe in self._probes_of(request))

    def _stops_of(self, request: Request) -> set[int]:
        """Where the user stands at a stop."""
        if self.plan is None:
            return set()
        if request.on_return:
            return {self.plan.dispatcher.return_address}
        return {place.address for place in self.places_of(self.choice_of(request))}

    def _probes_of(self, request: Request) -> tuple[Probe, ...]:
        if self.plan is None:
            return ()
        addresses = {place.address for place in self.places_of(self.choice_of(request))}
        if request.on_return:
            addresses |= _return_addresses(self.plan)
        return tuple(Probe(PROVIDER, request.probe_name, address) for address in sorted(addresses))

    # What GDB reports.

    def watch_gdb(self) -> None:
        """Follow stops, deletions, new kernels and lost connections from now on."""
        gdb.events.stop.connect(self._on_stop)
        gdb.events.breakpoint_created.connect(self._on_created)
        gdb.events.breakpoint_deleted.connect(self._on_deleted)
        gdb.events.breakpoint_modified.connect(self._on_modified)
        gdb.events.new_objfile.connect(self._on_new_objfile)
        gdb.events.clear_objfiles.connect(lambda _event: self._on_clear_objfiles())
        gdb.events.connection_removed.connect(lambda _event: self.forget())

    def _on_stop(self, _event: gdb.StopEvent) -> None:
        delete_retired()
        if self.plan is None:
            self._replan_and_report()

    def _replan_and_report(self) -> None:
        """GDB shows what its events raise as Python exceptions, which say nothing to a user."""
        try:
            self.replan()
        except ExoError as error:
            gdb.write(f"exo-syscall break: {error}\n", gdb.STDERR)

    def _on_created(self, row: gdb.Breakpoint) -> None:
        """Take in a row with a location of this kind that GDB's `break` made: from `save breakpoints`, say."""
        if isinstance(row, SyscallBreakpoint) or not row.location:
            return
        try:
            request = decode_location(row.location)
            if request is None:
                return
            parse_choice(request.choice, self.table())
        except ExoError as error:
            gdb.write(f"exo-syscall break: {error}\n", gdb.STDERR)
            return
        self._take_in(row, Catch(request))
        self._replan_and_report()

    def _take_in(self, row: gdb.Breakpoint, catch: Catch) -> None:
        catch.row = row
        self._catches[row.number] = catch
        _ask_us(row)

    def _on_deleted(self, row: gdb.Breakpoint) -> None:
        catch = self._catches.pop(row.number, None)
        if catch is not None:
            catch.clear()
            self.sync()

    def _on_modified(self, row: gdb.Breakpoint) -> None:
        if row.number not in self._catches:
            return
        # `condition N EXPR` is meant on top of what this breakpoint is for.
        if _ask_us(row) or self._is_placing or row.enabled == (row.number in self._served):
            return  # a hit is reported as a change, too
        if not row.enabled:
            self._catches[row.number].clear()  # what calls do meanwhile goes unseen
            self._catches[row.number].show_places()
        self.sync()

    def should_stop(self, number: int) -> bool:
        """What the condition of row `number` asks."""
        catch = self._catches.get(number)
        return catch is not None and catch.stop()

    def _on_clear_objfiles(self) -> None:
        # Removing the old probe file says the same as a new kernel.
        if not self._probes.is_unloading:
            self.forget()
            self._replan_and_report()

    def _on_new_objfile(self, event: gdb.NewObjFileEvent) -> None:
        space = gdb.current_progspace()
        is_kernel = space is not None and event.new_objfile.filename == space.filename
        if is_kernel and not self._probes.holds(event.new_objfile):
            self.forget()
            self._replan_and_report()
            self._report_strangers()

    def _report_strangers(self) -> None:
        """GDB disables a row that loses all its locations, and says nothing of it."""
        for number, catch in self._catches.items():
            try:
                parse_choice(catch.request.choice, self.table())
            except UsageError as error:
                wait = f"breakpoint {number} is pending: {error}; `enable {number}` once they are known again"
                gdb.write(f"exo-syscall break: {wait}\n", gdb.STDERR)


def _return_addresses(plan: SyscallPlan) -> set[int]:
    """What a breakpoint on returns must see: calls that return, and where no stack is watched, that begin."""
    address = plan.dispatcher.address
    begin = {address} if address is not None and not plan.may_watch else set()
    return {plan.dispatcher.return_address} | begin


def _to_setting(plan: SyscallPlan, choice: Choice, places: tuple[Place, ...]) -> Setting:
    address, back = plan.dispatcher.address, plan.dispatcher.return_address
    assert address is not None  # a plan was made from there
    plans = plan.places
    return Setting(choice, places, address, back, plans.counters, plan.may_watch, plans.find_arguments)


def _ask_us(row: gdb.Breakpoint) -> bool:
    """Make the row's condition call its `Catch`; says whether it had to be changed (and was reported again).

    Not while it is pending: GDB 13 would take a missing location for an error then, and disable the row.
    """
    condition = make_condition(row.number, row.condition)
    if row.pending or row.condition == condition:
        return False
    row.condition = condition
    return True


def _is_poor(plan: SyscallPlan) -> bool:
    """Whether most numbers could not be followed: the dispatcher went wrong before it compared anything."""
    places = [place for number, place in plan.places.items() if number != UNKNOWN]
    lost = [place for place in places if place.kind is PlaceKind.DISPATCHER]
    return len(lost) * 2 > len(places)


PLACEMENT = Placement()
