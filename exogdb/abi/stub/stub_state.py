"""Where the user's registers are at one instruction of the entry stub.

>>> held = InFrame("rsp", 8)
>>> class Stack:
...     def read(self, address: int, size: int) -> bytes:
...         return (address * 2).to_bytes(8, "little")
>>> hex(read_held(held, {"rsp": 0x1000}, None, Stack()))
'0x2010'
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from exogdb.abi.stub.location import InFrame, InRegister
from exogdb.abi.stub.symbolic import Cell, Flag, Gs, Loaded, MachineState, Sum, Value, find_origin, split
from exogdb.errors import UnavailableError
from exogdb.x86.memory import ReadableMemory

__all__ = [
    "BehindGsSlot",
    "Finder",
    "Held",
    "InGsSlot",
    "Lost",
    "StubState",
    "describe_held",
    "find_address",
    "read_held",
]


@dataclass(frozen=True)
class InGsSlot:
    """In memory, `offset` bytes from the kernel's GS base."""

    offset: int


@dataclass(frozen=True)
class BehindGsSlot:
    """In memory, `offset` bytes from the address that the per-CPU slot `slot` holds."""

    slot: int
    offset: int


@dataclass(frozen=True)
class Lost:
    """Nowhere that the stub knows of."""

    reason: str


Held: TypeAlias = InRegister | InFrame | InGsSlot | BehindGsSlot | Lost


@dataclass(frozen=True)
class StubState:
    """The machine in front of one instruction of the stub; `code` is the instruction's bytes.

    `after_dispatch`: the dispatcher has returned, so `registers` tells what the user will get back; before, what
    the user had. `gs` is whose GS base is active. `stack` is whose stack rsp points to: `user`, `kernel`, `other`
    (a trampoline) or `unknown`; `depth` is how many bytes rsp is below the kernel stack's top, if that is known.
    `copies` are all the CPU registers that hold a user register's value, `words` all the places in memory.
    `flags` are by name, see `flag`.
    """

    address: int
    code: bytes
    text: str
    after_dispatch: bool
    gs: Gs
    stack: str
    depth: int | None
    registers: Mapping[str, Held]
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, tuple[Held, ...]] = field(default_factory=dict)
    flags: Mapping[str, Flag] = field(default_factory=dict)

    def flag(self, name: str) -> Flag:
        """What the code has made of `IF`, `DF`, `AC` or `NT`."""
        return self.flags.get(name, Flag.LEFT)

    @property
    def next(self) -> int:
        """The address of the instruction behind this one."""
        return self.address + len(self.code)


def describe_held(held: Held) -> str:
    """The place as a user would write it.

    >>> [describe_held(each) for each in (InRegister("rcx"), InFrame("rsp", 16), InGsSlot(8), BehindGsSlot(0, -8))]
    ['rcx', '[rsp+0x10]', 'gs:[0x8]', '[gs:[0x0]-0x8]']
    """
    match held:
        case InRegister(name):
            return name
        case InFrame(pointer, offset):
            return f"[{pointer}{_signed_hex(offset)}]"
        case InGsSlot(offset):
            return f"gs:[{offset:#x}]"
        case BehindGsSlot(slot, offset):
            return f"[gs:[{slot:#x}]{_signed_hex(offset)}]"
        case Lost(reason):
            return f"lost ({reason})"


def _signed_hex(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}{abs(offset):#x}"


def find_address(
    held: Held, registers: Mapping[str, int], gs_base: int | None, memory: ReadableMemory
) -> int | None:
    """The address of the value, None when it is in a register. Same arguments and errors as `read_held`."""
    match held:
        case InRegister():
            return None
        case InFrame(pointer, offset):
            return (registers[pointer] + offset) % (1 << 64)
        case InGsSlot(offset):
            return (_need(gs_base) + offset) % (1 << 64)
        case BehindGsSlot(slot, offset):
            pointer_address = (_need(gs_base) + slot) % (1 << 64)
            return (int.from_bytes(memory.read(pointer_address, 8), "little") + offset) % (1 << 64)
        case Lost(reason):
            raise UnavailableError(reason)


def read_held(held: Held, registers: Mapping[str, int], gs_base: int | None, memory: ReadableMemory) -> int:
    """The 64-bit value, with `registers` as they are at that instruction and the kernel's GS base.

    :raise UnavailableError: the value is lost, or needs a GS base that is not known.
    :raise exogdb.errors.MemoryFault: the stack or the per-CPU block cannot be read.
    """
    if isinstance(held, InRegister):
        return registers[held.name]
    address = find_address(held, registers, gs_base, memory)
    assert address is not None
    return int.from_bytes(memory.read(address, 8), "little")


def _need(gs_base: int | None) -> int:
    if gs_base is None:
        raise UnavailableError("the kernel's GS base is not known")
    return gs_base


class Finder:
    """Answers where values are in one `state`. Each place is looked at once, however many values are asked for."""

    def __init__(self, state: MachineState) -> None:
        self._state = state

    @cached_property
    def _registers(self) -> dict[Value, list[str]]:
        found: dict[Value, list[str]] = defaultdict(list)
        for name, value in self._state.registers.items():
            if name != "cr3":
                found[value].append(name)
        return found

    @cached_property
    def _cells(self) -> dict[Value, list[Cell]]:
        found: dict[Value, list[Cell]] = defaultdict(list)
        for cell, value in self._state.memory.items():
            found[value].append(cell)
        return found

    def find_registers(self, value: Value) -> Sequence[str]:
        """All the registers that hold `value`, cr3 left out."""
        return self._registers.get(value, ())

    def find_held(self, wanted: tuple[Value, ...], register: str) -> Held:
        """Where the first of `wanted` that can be found is; the register of that name first.

        Memory that only a pointer in the per-CPU block leads to comes last.
        """
        for value in wanted:
            found = self._find_in_registers(value, register) or self._find_in_memory(value, _reach)
            if found is not None:
                return found
        for value in wanted:
            far = self._find_in_memory(value, _reach_far)
            if far is not None:
                return far
        return Lost("the stub does not keep it" if wanted else "the stub does not give it back")

    def _find_in_registers(self, value: Value, register: str) -> InRegister | None:
        exact = self.find_registers(value)
        return InRegister(register if register in exact else exact[0]) if exact else None

    def find_words(self, value: Value) -> Iterator[Held]:
        """All the places in memory that hold `value` and that a register or the GS base leads to."""
        return self._reached(value, _reach)

    def _find_in_memory(self, value: Value, reach: Callable[[Cell, MachineState], Held | None]) -> Held | None:
        return next(self._reached(value, reach), None)

    def _reached(self, value: Value, reach: Callable[[Cell, MachineState], Held | None]) -> Iterator[Held]:
        cells = [*self._cells.get(value, ())]
        origin = find_origin(value)
        if isinstance(origin, Loaded) and self._state.load(origin.cell) == origin:
            cells.insert(0, origin.cell)
        reached = (reach(cell, self._state) for cell in cells)
        return (held for held in reached if held is not None)


def _reach(cell: Cell, state: MachineState) -> Held | None:
    """How to get at `cell` from a register or the GS base."""
    if cell.space == "gs":
        return InGsSlot(cell.offset) if cell.base is None else None
    if cell.space != "memory" or cell.base is None:
        return None
    for name in ("rsp", *state.registers):
        value = state.registers[name]
        base, offset = split(value)
        if base == cell.base and not (isinstance(value, Sum) and not value.exact):
            return InFrame(name, cell.offset - offset)
    return None


def _reach_far(cell: Cell, state: MachineState) -> Held | None:
    """How to get at `cell` from a pointer in the per-CPU block."""
    match cell:
        case Cell("memory", Loaded(Cell("gs", None, slot)), offset):
            return BehindGsSlot(slot, offset)
    return None
