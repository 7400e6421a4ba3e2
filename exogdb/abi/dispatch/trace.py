"""What one emulated run of a dispatcher leaves behind: the code it passed, what it read, where it ended.

The emulator's own addresses are here, too: a run's stack, the frame and the return address are none of the
guest's, so whatever holds one of them came from the run's beginning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack

__all__ = [
    "ARGUMENT_VALUES",
    "ENTRY_RSP",
    "FRAME",
    "GENERAL_REGISTERS",
    "RETURN",
    "STACK",
    "STACK_SIZE",
    "Block",
    "Call",
    "DispatcherEntry",
    "Ending",
    "Snapshot",
    "TableRead",
    "Trace",
    "find_emulated",
]

# In the lower half, where no kernel code or data is.
STACK, STACK_SIZE = 0x6EAD_0000_0000, 0x10000
ENTRY_RSP = STACK + 0x8000 - 8  # as after a call: 8 below a multiple of 16
FRAME = STACK + 0xC000
RETURN = 0x6EAE_0000_0000
GENERAL_REGISTERS = (
    *("rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "rbx", "rbp", "r10", "r11", "r12", "r13", "r14", "r15"),
)

ARGUMENT_VALUES = tuple(0x5EED_0A26_0000_0000 | 0x1111_1111 * (index + 1) for index in range(6))
"""What the six arguments are in every run: values that code does not make by itself."""


def find_emulated(location: Location | None) -> int | None:
    """The address of `location` at the dispatcher's first instruction in every run; None for a register.

    >>> find_emulated(OnStack(8)) == ENTRY_RSP + 8, find_emulated(InRegister("rdi"))
    (True, None)
    """
    match location:
        case OnStack(offset):
            return ENTRY_RSP + offset
        case InFrame(_, offset):
            return FRAME + offset
        case _:
            return None


@dataclass(frozen=True)
class DispatcherEntry:
    """A dispatcher's first instruction, and where the number and the six arguments are at that moment.

    `saved` is where the entry stub keeps a copy of the number that is not the dispatcher's own, if it does.
    """

    address: int
    number: Location
    arguments: tuple[Location, ...] = ()
    saved: Location | None = None


class Block(NamedTuple):
    """Code that ran without a jump: addresses `start` to `end`, the latter excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """A call that was not followed: its target, and the address after the call instruction."""

    target: int
    returns_to: int


class TableRead(NamedTuple):
    """A read of `size` bytes at `address`, outside the stack and the frame."""

    address: int
    size: int

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.address + self.size


class Ending(Enum):
    """Why a run ended."""

    CALL = "a call that is not followed"
    RETURN = "the dispatcher returned"
    FAULT = "an instruction or an address that the emulation cannot do"
    BUDGET = "too many instructions"
    REACHED = "the address that was asked for"
    WAY_OUT = "a call on the way out that all numbers take"
    ALIKE = "what an earlier run did, too"


@dataclass
class Trace:
    """One run. `reads[i]` holds the position in `blocks` of the block that made the read, and the read.

    `after` is what runs once the call that was not followed has returned, `passed` the targets of calls that were
    passed over. `counters` are the addresses of 8-byte words that the code added 1 to, `lowered` of those that it
    took 1 off, before or behind that call.
    """

    number: int
    blocks: list[Block] = field(default_factory=list)
    reads: list[tuple[int, TableRead]] = field(default_factory=list)
    ending: Ending = Ending.RETURN
    call: Call | None = None
    after: list[Block] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    counters: set[int] = field(default_factory=set)
    lowered: set[int] = field(default_factory=set)
    stuck_in: int | None = None
    """The outermost followed call that a fault or the budget happened in."""


@dataclass(frozen=True)
class Snapshot:
    """The emulated CPU at one address: registers, and the 8-byte stack words from rsp up.

    `is_depth_known`: code got here that moves rsp by the same in every call, so that offsets from it hold. `saved`
    is what the stub's copy of the number is by now.
    """

    registers: Mapping[str, int]
    stack: tuple[int, ...]
    is_depth_known: bool = True
    saved: int | None = None

    @property
    def return_slot(self) -> int | None:
        """Bytes from rsp up to the dispatcher's own return address; None if each call has another number."""
        return ENTRY_RSP - self.registers["rsp"] if self.is_depth_known else None

    def is_dispatcher_return(self, value: int) -> bool:
        """Whether `value` stands for the address that the dispatcher returns to."""
        return value == RETURN

    def locate(self, value: int) -> list[Location]:
        """Every place that holds `value`, registers first; stack offsets count from rsp here, where they hold."""
        found: list[Location] = [InRegister(name) for name in GENERAL_REGISTERS if self.registers[name] == value]
        if self.is_depth_known:
            found += [OnStack(8 * index) for index, word in enumerate(self.stack) if word == value]
        return found

    def locate_frame(self, offset: int) -> list[Location]:
        """The registers that hold the frame's address, each as a way to the word at `offset` in it."""
        return [InFrame(name, offset) for name in GENERAL_REGISTERS if self.registers[name] == FRAME]
