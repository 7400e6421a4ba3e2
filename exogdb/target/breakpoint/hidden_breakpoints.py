"""Breakpoints that the user does not see and that never stop the guest for the user.

::

    TableWatch     a read of entries in a jump table: lets the place of the number that was read be seen, once
    ReturnWatch    the stack slot that a call returns through: tells when, without looking at other returns
    Provisional    the dispatcher, until the plan is made: before the kernel runs there is nothing to plan with

What happens at a stop must not resume the guest, nor delete a breakpoint: both would pull the ground from under
GDB, which is in the middle of deciding about that stop. Breakpoints are disabled there, and deleted later.
"""

from collections.abc import Callable
from dataclasses import replace

import gdb

from exogdb.abi.dispatch.table_range import TableRange
from exogdb.abi.stub.location import read_location
from exogdb.errors import ExoError, UnavailableError
from exogdb.target.breakpoint.hit import Hit, StopRegisters
from exogdb.target.cpus import Cpu, selected_cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.registers import read_register
from exogdb.target.run.ctrl_c import decide_undisturbed
from exogdb.target.with_setting import with_setting

__all__ = ["Provisional", "ReturnWatch", "TableWatch", "delete_retired"]

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
            with with_setting("language", "c"):
                self.enabled = on

    def retire(self) -> None:
        """Never hit again; deleted when GDB is not in the middle of a stop."""
        if self.is_valid():
            self.switch(False)
            _retired.append(self)


class TableWatch(_Internal):
    """Sees the dispatcher read an entry of its table in a range; `tell` gets the CPU and the entry's number."""

    def __init__(self, entries: TableRange, tell: Callable[[Cpu, int], None]) -> None:
        self._entries = entries
        self._tell = tell
        with with_setting("language", "c"):
            expression = _watch_expression(entries.address, entries.size)
            super().__init__(expression, gdb.BP_WATCHPOINT, gdb.WP_READ, internal=True)

    def stop(self) -> bool:
        """Tell which CPU will come by which number's place next."""
        return decide_undisturbed(self._pass_on)

    def _pass_on(self) -> bool:
        cpu = selected_cpu()
        number = self._read_number(cpu)
        if number is not None:
            self._tell(cpu, number)
        return False

    def _read_number(self, cpu: Cpu) -> int | None:
        """The number whose entry `cpu` has just read; None if it was not the dispatcher that read."""
        registers = StopRegisters()
        try:
            told = self._entries.tell(registers["rip"])
            if told is None or isinstance(told, int):
                return told
            number = read_location(told, registers, VirtualMemory(cpu))
        except UnavailableError:
            return None
        return number if number in self._entries.numbers else None


class ReturnWatch(_Internal):
    """Sees the stack slot of one call's return address: read by the return itself, or written by another call.

    A kernel stack belongs to one process, so the slot stays as it is for as long as the call lasts, however long
    it blocks and whoever runs meanwhile. A write means that the stack was given away: the call never returns. The
    write may be a new call, which puts the same address there.
    Enabled while a call is in flight, and used again for the next one on the same stack. `tell` gets the call that
    returned.
    """

    def __init__(self, slot: int, dispatcher: int, return_address: int, tell: Callable[[Hit], None]) -> None:
        self.hit: Hit | None = None
        self._slot = slot
        self._dispatcher = dispatcher
        self._return_address = return_address
        self._tell = tell
        with with_setting("language", "c"):
            super().__init__(_watch_expression(slot, 8), gdb.BP_WATCHPOINT, gdb.WP_ACCESS, internal=True)

    def follow(self, hit: Hit) -> None:
        """Wait for `hit`'s return; a call that was in flight on this stack is forgotten."""
        self.hit = hit
        self.switch(True)

    def stop(self) -> bool:
        """Tell that the call returned, or forget it if it never will."""
        return decide_undisturbed(self._look)

    def _look(self) -> bool:
        self._follow_slot(selected_cpu())
        return False

    def _follow_slot(self, cpu: Cpu) -> None:
        hit = self.hit
        if hit is None:
            return
        if self._is_return(cpu):
            self.rest()
            # The process may have moved: the CPU that the call returns on is this one.
            self._tell(replace(hit, cpu=cpu, result=read_register(cpu, "rax")))
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
        return decide_undisturbed(self._plan)

    def _plan(self) -> bool:
        self.retire()
        try:
            self._make_plan(selected_cpu())
        except ExoError as error:
            gdb.write(f"exo-syscall break: {error}\n", gdb.STDERR)
        return False


def _watch_expression(address: int, size: int) -> str:
    kind = {1: "char", 2: "short", 4: "int", 8: "long"}.get(size)
    return f"*(unsigned {kind} *){address:#x}" if kind else f"*(unsigned char (*)[{size}]){address:#x}"
