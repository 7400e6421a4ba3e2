"""Breakpoints on system calls, each one `gdb.Breakpoint` that GDB's own commands know how to treat.

A `SyscallBreakpoint` is one row of `info breakpoints` whose locations are the places that the plan chose for its
numbers. Its location is a probe name (`abi.request`), so `save breakpoints`, `disable`, `ignore`, `commands`,
pending and re-setting are GDB's own. `Placement` decides what the name stands for, `Catch` about each stop. Beside
it there are breakpoints that no user sees (`hidden_breakpoints`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import gdb

from exogdb.abi.choice import Choice
from exogdb.abi.dispatch.place import FindArguments, Place, PlaceKind
from exogdb.abi.dispatch.request import Request, encode_location
from exogdb.abi.dispatch.route import UNKNOWN
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import ExoError, TargetLostError, UnavailableError, UsageError
from exogdb.target.breakpoint.hidden_breakpoints import ReturnWatch
from exogdb.target.breakpoint.hit import (
    Hit,
    StopRegisters,
    find_slot,
    read_arguments_at,
    read_hit,
    set_convenience,
)
from exogdb.target.breakpoint.locations import Locations
from exogdb.target.breakpoint.told import ToldCalls
from exogdb.target.cpus import Cpu, selected_cpu
from exogdb.target.current_process import find_process_id
from exogdb.target.memory import VirtualMemory

__all__ = ["STOP_FUNCTION", "Catch", "Setting", "SyscallBreakpoint", "make_condition"]

STOP_FUNCTION = "_exo_syscall_stop"
"""The GDB function that a row's condition calls with the row's number."""

_TELLING = ("rip", "rdi", "rsi", "rdx", "rcx", "r8", "r9")  # of two calls at one address on one stack
_OWN_CONDITION = re.compile(rf"^\${STOP_FUNCTION}\(\d+\)(?: && )?")


@dataclass(frozen=True)
class Setting:
    """What the plan gave to one breakpoint: its numbers and places, the path that they are on.

    `dispatcher` and `return_address` are the path's. `counters` are words in memory that tell two calls apart.
    `may_watch`: watchpoints can be trusted. `find_arguments` tells where the arguments are on the way to a place.
    """

    choice: Choice
    places: tuple[Place, ...]
    path: EntryPath
    dispatcher: int
    return_address: int
    counters: tuple[int, ...] = ()
    may_watch: bool = True
    find_arguments: FindArguments = lambda _number, _address: (None,) * 6

    @cached_property
    def behind_dispatcher(self) -> frozenset[int]:
        """The numbers that are looked at when they stop at the dispatcher."""
        return frozenset(place.number for place in self.places if place.kind is PlaceKind.BEHIND_DISPATCHER)

    def places_at(self, address: int) -> Sequence[Place]:
        """Those that a CPU at `address` may be at."""
        return self._by_address.get(address, ())

    @cached_property
    def _by_address(self) -> Mapping[int, Sequence[Place]]:
        found: dict[int, list[Place]] = {}
        for place in self.places:
            found.setdefault(place.address, []).append(place)
        return found


class Catch:
    """Decides which stops of one row are system calls that its user asked for."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.row: gdb.Breakpoint | None = None
        """What GDB's user sees; None while GDB is still making it."""
        self.setting: Setting | None = None
        self.hit: Hit | None = None
        """The call of the last stop."""
        self.is_meant = True
        """Whether the user has it enabled. GDB disables a row on its own when it loses all its locations."""
        self.locations = Locations()
        self._told = ToldCalls()
        self._let_on: dict[int, Hit] = {}
        """By return slot, the calls that were chosen at the dispatcher and are on the way to their place."""
        self._watches: dict[int, ReturnWatch] = {}
        self._returned: dict[int, Hit] = {}
        self._last_seen: dict[int, tuple[object, ...]] = {}
        self._in_flight: dict[int, Hit] = {}

    @property
    def is_enabled(self) -> bool:
        """Whether the row is there and enabled."""
        return self.row is not None and self.row.is_valid() and self.row.enabled

    def stop(self) -> bool:
        """GDB asks whether this is a stop. Reads the guest, never resumes it.

        :raise gdb.GdbError: the guest or the user's condition cannot be read.
        """
        try:
            return self._decide(selected_cpu(), StopRegisters())
        except TargetLostError:
            return True
        except ExoError as error:
            # GDB stops at a condition that fails, and says why.
            raise gdb.GdbError(f"exo-syscall break: {error}") from None

    def see_first_call(self, cpu: Cpu) -> None:
        """The plan was just made at the dispatcher, and GDB steps the call past a breakpoint that is new there."""
        registers = StopRegisters()
        if not self.is_enabled or self.setting is None or registers["rip"] != self.setting.dispatcher:
            return
        found = self._find_hit(cpu, registers, registers["rip"])
        if found is None or self._is_repeated(cpu, registers, found.return_slot):
            return
        if not self._is_candidate(cpu, registers):
            return
        if self.request.on_return:
            self._watch_return(found)
        elif found.number in self.setting.behind_dispatcher and self._is_wanted(found) is not False:
            self._let_go_on(found)

    def expect(self, cpu: Cpu, number: int) -> None:
        """A table entry of `number` was read on `cpu`: its place comes next for that call.

        Unless it is clear now that this call is not wanted: that saves the second stop.
        """
        if not self.is_enabled or self.setting is None or number not in self.setting.choice:
            return
        registers = StopRegisters()
        if self._is_candidate(cpu, registers) and self._may_be_wanted(cpu, number):
            self._told.add(cpu, registers, self.setting.path, number)
            self.show_places()

    def expect_return(self, hit: Hit) -> None:
        """The call `hit` has returned: its CPU stands at the return address."""
        self._returned[hit.cpu.index] = hit
        self.show_places()

    def show_places(self) -> None:
        """Have GDB insert the locations that may be hit now, and only these: a location costs its whole page."""
        setting = self.setting
        if setting is None or self.row is None or not self.row.is_valid():
            return
        always = {p.address for p in setting.places if p.kind in (PlaceKind.ADDRESS, PlaceKind.DISPATCHER)}
        expected = {*self._told.numbers, *(hit.number for hit in self._let_on.values())}
        now = {p.address for p in setting.places if p.number in expected}
        if self._returned or self._in_flight:
            now.add(setting.return_address)
        if self._in_flight:
            now.add(setting.dispatcher)
        self.locations.show(self.row, always | now)

    def show_all(self) -> None:
        """Enable every location, as GDB makes them: re-setting then keeps those that it finds unchanged."""
        if self.row is not None and self.row.is_valid():
            self.locations.show_all(self.row)

    def clear(self) -> None:
        """Forget every call in progress: the guest is another one now."""
        self._told.clear()
        self._let_on.clear()
        self._returned.clear()
        for watch in self._watches.values():
            watch.retire()
        self._watches.clear()
        self._in_flight.clear()
        self._last_seen.clear()

    def _decide(self, cpu: Cpu, registers: StopRegisters) -> bool:
        if self.setting is None:
            return False
        address = registers["rip"]
        if address == self.setting.return_address and cpu.index in self._returned:
            hit = self._returned.pop(cpu.index)
            self.show_places()
            return self._accept(hit)
        if address == self.setting.return_address and self._in_flight:
            return self._accept_return(cpu, registers)
        return self._decide_about_call(cpu, registers, address)

    def _decide_about_call(self, cpu: Cpu, registers: StopRegisters, address: int) -> bool:
        assert self.setting is not None
        found = self._find_hit(cpu, registers, address)
        begins = address == self.setting.dispatcher and bool(self._in_flight or self._let_on)
        if found is None and not begins:
            return False
        slot = registers["rsp"] if found is None else found.return_slot
        if self._is_repeated(cpu, registers, slot):
            return False
        if begins and slot is not None:
            self._forget_call_on(slot)
        return found is not None and self._is_candidate(cpu, registers) and self._decide_about(found, address)

    def _decide_about(self, found: Hit, address: int) -> bool:
        assert self.setting is not None
        if self.request.on_return:
            self._watch_return(found)
            return False
        if address == self.setting.dispatcher and found.number in self.setting.behind_dispatcher:
            return self._decide_at_dispatcher(found)
        return self._accept(found)

    def _decide_at_dispatcher(self, hit: Hit) -> bool:
        """Let a call that is wanted go on to its place and stop there.

        What can be decided here, and a hit that `ignore` takes off, need no second stop.
        """
        assert self.row is not None
        is_wanted = self._is_wanted(hit)
        if is_wanted and self.row.ignore_count and self.row.condition == make_condition(self.row.number, None):
            return True
        if is_wanted is not False:
            self._let_go_on(hit)
        return False

    def _let_go_on(self, hit: Hit) -> None:
        assert hit.return_slot is not None, "rsp is at it in front of the dispatcher"
        self._let_on[hit.return_slot] = hit
        self.show_places()

    def _is_candidate(self, cpu: Cpu, registers: Mapping[str, int]) -> bool:
        """Whether it is a call on the CPU and by the process that the user asked for."""
        if self.request.cpu is not None and cpu.index != self.request.cpu:
            return False
        return self.request.process is None or self.request.process == find_process_id(cpu, registers["gs_base"])

    def _may_be_wanted(self, cpu: Cpu, number: int) -> bool:
        """False if the condition can be read before the call is at its place, and does not hold."""
        assert self.setting is not None
        if self.request.on_return or not self.request.is_about_the_call:
            return True
        registers = StopRegisters()
        places = enumerate(self.setting.find_arguments(number, registers["rip"]))
        asked = [place if index in self.request.arguments else None for index, place in places]
        arguments = read_arguments_at(asked, registers, VirtualMemory(cpu))
        return self._is_wanted(Hit(cpu, number, arguments, return_slot=0)) is not False

    def _is_wanted(self, hit: Hit) -> bool | None:
        """Whether the condition holds, as far as the number and the arguments tell; None if they do not."""
        if not self.request.condition:
            return True
        if not self.request.is_about_the_call:
            return None
        set_convenience(hit, self.request.arguments)
        try:
            return _is_true(self.request.condition)
        except UsageError:
            return None  # an argument that is not known here may be known there

    def _find_hit(self, cpu: Cpu, registers: StopRegisters, address: int) -> Hit | None:
        assert self.setting is not None
        found = (self._read_hit(cpu, registers, place) for place in self.setting.places_at(address))
        return next((hit for hit in found if hit is not None), None)

    def _read_hit(self, cpu: Cpu, registers: StopRegisters, place: Place) -> Hit | None:
        """The call that stands at `place` on `cpu`; None if it is none of this breakpoint's."""
        assert self.setting is not None
        if place.kind is PlaceKind.BEHIND_DISPATCHER:
            return self._arrive(cpu, place, find_slot(cpu, registers, place, self.setting.path))
        if place.kind is PlaceKind.TABLE_ENTRY and not self._take_told(cpu, registers, place):
            return None
        hit = read_hit(cpu, registers, place, self.setting.path)
        if hit is None or not self._is_of(place, hit.number):
            return None
        # Another call's handler may go to this one's, by a jump that leaves no trace on the stack.
        return None if hit.other in self.setting.choice.known else hit

    def _take_told(self, cpu: Cpu, registers: StopRegisters, place: Place) -> bool:
        """Whether the call at `place` has read the entry of its number on its way; asked once."""
        assert self.setting is not None
        is_told = self._told.take(cpu, registers, place, self.setting.path)
        if is_told:
            self.show_places()
        return is_told

    def _arrive(self, cpu: Cpu, place: Place, return_slot: int | None) -> Hit | None:
        """A call that was let go on at the dispatcher is at its place, on whatever CPU it is by now."""
        hit = self._let_on.get(return_slot) if return_slot is not None else None
        if return_slot is None or hit is None or hit.number != place.number:
            return None
        del self._let_on[return_slot]
        self.show_places()
        return replace(hit, cpu=cpu)

    def _is_repeated(self, cpu: Cpu, registers: StopRegisters, return_slot: int | None) -> bool:
        """Whether this is the same call at the same instruction again. To be asked once for each stop.

        QEMU sometimes reports a single step over a breakpoint as done when the instruction has not run (a timer
        came in between), and GDB then meets its breakpoint again. Only a word that the kernel counts its calls in
        can tell that from the next call of a loop, and the arguments tell it from the next call if the kernel
        turned the last one away before it counted it.
        """
        assert self.setting is not None
        if not self.setting.counters:
            return False
        memory = VirtualMemory(cpu)
        counters = (memory.read(counter, 8) for counter in self.setting.counters)
        state = (return_slot, *(registers[name] for name in _TELLING), *counters)
        if self._last_seen.get(cpu.index) == state:
            return True
        self._last_seen[cpu.index] = state
        return False

    def _is_of(self, place: Place, number: int) -> bool:
        assert self.setting is not None
        if place.kind is PlaceKind.DISPATCHER and number in self.setting.behind_dispatcher:
            return True
        if place.number == UNKNOWN:
            return number not in self.setting.choice.known
        return number == place.number

    def _accept(self, hit: Hit) -> bool:
        is_wanted = self._is_wanted(hit)
        if is_wanted is False:
            return False
        set_convenience(hit)
        if is_wanted is None and not _is_true(self.request.condition):
            return False
        self.hit = hit
        return True

    def _accept_return(self, cpu: Cpu, registers: StopRegisters) -> bool:
        """At the address that every call returns to: is this one of ours?"""
        hit = self._in_flight.pop(registers["rsp"] - 8, None)
        if hit is None:
            return False
        self.show_places()
        return self._accept(replace(hit, cpu=cpu, result=registers["rax"]))

    def _forget_call_on(self, return_slot: int) -> None:
        """A call begins on this stack: one that was in flight there never returned, or never got to its place."""
        gone = self._in_flight.pop(return_slot, None), self._let_on.pop(return_slot, None)
        if any(hit is not None for hit in gone):
            self.show_places()

    def _watch_return(self, hit: Hit) -> None:
        assert self.setting is not None
        slot, setting = hit.return_slot, self.setting
        if slot is None:
            raise UnavailableError("the stack does not tell where this call returns to: its return will go unseen")
        if not setting.may_watch:
            self._in_flight[slot] = hit
            self.show_places()
            return
        watch = self._watches.get(slot)
        if watch is None or not watch.is_valid():
            watch = ReturnWatch(slot, setting.dispatcher, setting.return_address, self.expect_return)
            self._watches[slot] = watch
        watch.follow(hit)


class SyscallBreakpoint(gdb.Breakpoint):
    """The row of one `exo-syscall break`. Its condition asks `Catch`, see `make_condition`."""

    def __init__(self, catch: Catch, *, temporary: bool = False) -> None:
        self.catch = catch
        super().__init__(encode_location(catch.request), temporary=temporary)


def make_condition(number: int, users: str | None) -> str:
    """The condition of row `number` that asks its `Catch` first, then what the user wants on top.

    A condition, not a `stop` method: GDB counts a hit and takes one off `ignore` even if `stop` says no.
    """
    own = f"${STOP_FUNCTION}({number})"
    rest, times = _OWN_CONDITION.subn("", users or "", count=1)
    if not rest:
        return own
    return f"{own} && {rest}" if times else f"{own} && ({rest})"


def _is_true(condition: str) -> bool:
    try:
        return bool(gdb.parse_and_eval(condition))
    except gdb.error as error:
        raise UsageError(f"`--if {condition}`: {error}") from error
