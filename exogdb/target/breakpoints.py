"""Breakpoints on system calls, each one `gdb.Breakpoint` that GDB's own commands know how to treat.

A `SyscallBreakpoint` is one row of `info breakpoints` whose locations are the places that the plan chose for its
numbers. Its location is a probe name (`abi.request`), so `save breakpoints`, `disable`, `ignore`, `commands`,
pending and re-setting are GDB's own. `Placement` decides what the name stands for, `Catch` about each stop. Beside
it there are breakpoints that no user sees and that never stop::

    TableWatch     a read of one number's entry in a jump table: lets that number's place be seen, once
    ReturnWatch    the stack slot that a call returns through: tells when, without looking at other returns
    Provisional    the dispatcher, until the plan is made: before the kernel runs there is nothing to plan with

What happens at a stop must not resume the guest, nor delete a breakpoint: both would pull the ground from under
GDB, which is in the middle of deciding about that stop. Breakpoints are disabled there, and deleted later.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import gdb

from exogdb.abi.choice import Choice
from exogdb.abi.dispatch import UNKNOWN
from exogdb.abi.plan import Place, PlaceKind
from exogdb.abi.request import Request, encode_location
from exogdb.errors import ExoError, TargetLostError, UnavailableError, UsageError
from exogdb.target.cpus import Cpu, selected_cpu
from exogdb.target.current_process import find_process_id
from exogdb.target.hit import Hit, read_hit, set_convenience
from exogdb.target.memory import VirtualMemory
from exogdb.target.registers import read_register

__all__ = ["Catch", "Provisional", "ReturnWatch", "Setting", "SyscallBreakpoint", "TableWatch", "delete_retired"]

STOP_FUNCTION = "_exo_syscall_stop"
"""The GDB function that a row's condition calls with the row's number."""

_OWN_CONDITION = re.compile(rf"^\${STOP_FUNCTION}\(\d+\)(?: && )?")
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class Setting:
    """What the plan gave to one breakpoint: its numbers and places, the dispatcher, where calls return to.

    `counters` are words in memory that grow with every call. `may_watch`: watchpoints can be trusted.
    """

    choice: Choice
    places: tuple[Place, ...]
    dispatcher: int
    return_address: int
    counters: tuple[int, ...] = ()
    may_watch: bool = True


class Catch:
    """Decides which stops of one row are system calls that its user asked for."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.row: gdb.Breakpoint | None = None
        """What GDB's user sees; None while GDB is still making it."""
        self.setting: Setting | None = None
        self.hit: Hit | None = None
        """The call of the last stop."""
        self._told: dict[int, int] = {}
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
            return self._decide(selected_cpu())
        except TargetLostError:
            return True
        except ExoError as error:
            # GDB stops at a condition that fails, and says why.
            raise gdb.GdbError(f"exo-syscall break: {error}") from None

    def expect(self, cpu: int, number: int) -> None:
        """A table entry of `number` was read on `cpu`: its place comes next on that CPU."""
        if self.is_enabled and self.setting is not None and number in self.setting.choice:
            self._told[cpu] = number
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
        always = {p.address for p in setting.places if p.kind is not PlaceKind.TABLE_ENTRY}
        now = {p.address for p in setting.places if p.number in self._told.values()}
        if self._returned or self._in_flight:
            now.add(setting.return_address)
        if self._in_flight:
            now.add(setting.dispatcher)
        for location in self.row.locations:
            wanted = location.address & _MASK_64 in always | now
            if location.enabled != wanted:
                location.enabled = wanted

    def show_all(self) -> None:
        """Enable every location, as GDB makes them: re-setting then keeps those that it finds unchanged."""
        if self.row is not None and self.row.is_valid():
            for location in self.row.locations:
                location.enabled = True

    def clear(self) -> None:
        """Forget every call in progress: the guest is another one now."""
        self._told.clear()
        self._returned.clear()
        for watch in self._watches.values():
            watch.retire()
        self._watches.clear()
        self._in_flight.clear()

    def _decide(self, cpu: Cpu) -> bool:
        if self.setting is None:
            return False
        address = read_register(cpu, "rip")
        if address == self.setting.return_address and cpu.index in self._returned:
            hit: Hit | None = self._returned.pop(cpu.index)
            self.show_places()
            return self._accept(hit) if hit is not None else False
        if address == self.setting.return_address and self._in_flight:
            return self._accept_return(cpu)
        if address == self.setting.dispatcher and self._in_flight:
            self._forget_call_on(read_register(cpu, "rsp"))
        hit = self._find_hit(cpu, address)
        if hit is None or self._is_repeated(hit, address) or not self._is_wanted(hit):
            return False
        hit = replace(hit, process=find_process_id(cpu))
        if self.request.process is not None and hit.process != self.request.process:
            return False
        if self.request.on_return:
            self._watch_return(hit)
            return False
        return self._accept(hit)

    def _find_hit(self, cpu: Cpu, address: int) -> Hit | None:
        assert self.setting is not None
        told = self._told.pop(cpu.index, None)
        hit = None
        for place in self.setting.places:
            if place.address == address and hit is None and self._may_be(place, told):
                hit = read_hit(cpu, place, self.setting.return_address, told)
                hit = hit if hit is not None and self._is_of(place, hit.number) else None
        if told is not None:
            self.show_places()
        return hit

    def _is_repeated(self, hit: Hit, address: int) -> bool:
        """Whether this is the same call at the same instruction again.

        QEMU sometimes reports a single step over a breakpoint as done when the instruction has not run (a timer
        came in between), and GDB then meets its breakpoint again. Only a word that the kernel counts its calls in
        can tell that from the next call of a loop.
        """
        assert self.setting is not None
        if not self.setting.counters:
            return False
        memory = VirtualMemory(hit.cpu)
        state = (address, hit.return_slot, *(memory.read(counter, 8) for counter in self.setting.counters))
        if self._last_seen.get(hit.cpu.index) == state:
            return True
        self._last_seen[hit.cpu.index] = state
        return False

    def _may_be(self, place: Place, told: int | None) -> bool:
        return place.kind is not PlaceKind.TABLE_ENTRY or place.number == told

    def _is_of(self, place: Place, number: int) -> bool:
        assert self.setting is not None
        if place.number == UNKNOWN:
            return number not in self.setting.choice.known
        return number == place.number

    def _is_wanted(self, hit: Hit) -> bool:
        return self.request.cpu is None or hit.cpu.index == self.request.cpu

    def _accept(self, hit: Hit) -> bool:
        set_convenience(hit)
        if self.request.condition and not _is_true(self.request.condition):
            return False
        self.hit = hit
        return True

    def _accept_return(self, cpu: Cpu) -> bool:
        """At the address that every call returns to: is this one of ours?"""
        hit = self._in_flight.pop(read_register(cpu, "rsp") - 8, None)
        if hit is None:
            return False
        self.show_places()
        return self._accept(replace(hit, cpu=cpu, result=read_register(cpu, "rax")))

    def _forget_call_on(self, return_slot: int) -> None:
        """A call begins on the stack of one that was in flight, which therefore never returned."""
        if self._in_flight.pop(return_slot, None) is not None:
            self.show_places()

    def _watch_return(self, hit: Hit) -> None:
        assert self.setting is not None
        if not self.setting.may_watch:
            self._in_flight[hit.return_slot] = hit
            self.show_places()
            return
        watch = self._watches.get(hit.return_slot)
        if watch is None or not watch.is_valid():
            watch = ReturnWatch(hit.return_slot, self.setting, self)
            self._watches[hit.return_slot] = watch
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
    rest = _OWN_CONDITION.sub("", users or "", count=1)
    return f"{own} && ({rest})" if rest and not rest.startswith("(") else own + (f" && {rest}" if rest else "")


_retired: list[gdb.Breakpoint] = []


def delete_retired() -> None:
    """Delete the internal breakpoints that are done with. Not while GDB decides about a stop."""
    while _retired:
        each = _retired.pop()
        if each.is_valid():
            each.delete()


class _Internal(gdb.Breakpoint):
    """A breakpoint that the user does not see and that never stops the guest for the user."""

    def switch(self, on: bool) -> None:
        """Enable or disable it."""
        if self.is_valid() and self.enabled != on:
            # Enabling a watchpoint parses its expression anew, in whatever language the frame is.
            with gdb.with_parameter("language", "c"):
                self.enabled = on

    def retire(self) -> None:
        """Never hit again; deleted when GDB is not in the middle of a stop."""
        if self.is_valid():
            self.switch(False)
            _retired.append(self)


class TableWatch(_Internal):
    """Sees the dispatcher read one number's entry of its table."""

    def __init__(self, address: int, size: int, number: int, listeners: Callable[[], Iterable[Catch]]) -> None:
        self._number = number
        self._listeners = listeners
        with gdb.with_parameter("language", "c"):
            super().__init__(_watch_expression(address, size), gdb.BP_WATCHPOINT, gdb.WP_READ, internal=True)

    def stop(self) -> bool:
        """Tell every breakpoint that wants this number where it will come by next."""
        try:
            cpu = selected_cpu().index
            for catch in self._listeners():
                catch.expect(cpu, self._number)
        except KeyboardInterrupt:
            return True  # Ctrl-C in the middle of this: GDB would print it and go on
        return False


class ReturnWatch(_Internal):
    """Sees the stack slot of one call's return address: read by the return itself, or written by another call.

    A kernel stack belongs to one process, so the slot stays as it is for as long as the call lasts, however long
    it blocks and whoever runs meanwhile. A write means that the stack was given away: the call never returns. The
    write may be a new call, which puts the same address there.
    Enabled while a call is in flight, and used again for the next one on the same stack.
    """

    def __init__(self, slot: int, setting: Setting, owner: Catch) -> None:
        self.hit: Hit | None = None
        self._slot = slot
        self._dispatcher = setting.dispatcher
        self._return_address = setting.return_address
        self._owner = owner
        with gdb.with_parameter("language", "c"):
            super().__init__(_watch_expression(slot, 8), gdb.BP_WATCHPOINT, gdb.WP_ACCESS, internal=True)

    def follow(self, hit: Hit) -> None:
        """Wait for `hit`'s return; a call that was in flight on this stack is forgotten."""
        self.hit = hit
        self.switch(True)

    def stop(self) -> bool:
        """Tell the owner that the call returned, or forget it if it never will."""
        try:
            self._follow_slot(selected_cpu())
        except KeyboardInterrupt:
            return True
        return False

    def _follow_slot(self, cpu: Cpu) -> None:
        hit = self.hit
        if hit is None:
            return
        if self._is_return(cpu):
            self.rest()
            # The process may have moved: the CPU that the call returns on is this one.
            self._owner.expect_return(replace(hit, cpu=cpu, result=read_register(cpu, "rax")))
        elif self._is_new_call(cpu) or self._read_slot(cpu) != self._return_address:
            self.rest()

    def rest(self) -> None:
        """No call is in flight on this stack."""
        self.hit = None
        self.switch(False)

    def _is_return(self, cpu: Cpu) -> bool:
        """Whether RET just took the address out of the slot: rip is there, and rsp right above it."""
        at_address = read_register(cpu, "rip") == self._return_address
        return at_address and read_register(cpu, "rsp") == self._slot + 8

    def _is_new_call(self, cpu: Cpu) -> bool:
        """Whether CALL just put the address into the slot."""
        return read_register(cpu, "rip") == self._dispatcher and read_register(cpu, "rsp") == self._slot

    def _read_slot(self, cpu: Cpu) -> int | None:
        try:
            return int.from_bytes(VirtualMemory(cpu).read(self._slot, 8), "little")
        except UnavailableError:
            return None


class Provisional(_Internal):
    """Stands at the dispatcher until there is a plan, and makes it with the first call that comes by."""

    def __init__(self, address: int, make_plan: Callable[[Cpu], None]) -> None:
        self._make_plan = make_plan
        super().__init__(f"*{address:#x}", internal=True)

    def stop(self) -> bool:
        """Plan now: a call is under way, so the kernel's state is all there."""
        self.retire()
        try:
            self._make_plan(selected_cpu())
        except ExoError as error:
            gdb.write(f"exo-syscall break: {error}\n", gdb.STDERR)
        return False


def _watch_expression(address: int, size: int) -> str:
    kind = {1: "char", 2: "short", 4: "int", 8: "long"}[size]
    return f"*(unsigned {kind} *){address:#x}"


def _is_true(condition: str) -> bool:
    try:
        return bool(gdb.parse_and_eval(condition))
    except gdb.error as error:
        raise UsageError(f"`--if {condition}`: {error}") from error
