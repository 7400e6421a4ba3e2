"""Where a value is when the CPU stands at the first instruction of a function.

The entry stub decides how the system-call number and its arguments reach the dispatcher. Three ways cover the
kernels known so far::

    InRegister("rdi")        extern "C" fn syscall_dispatch(num, ...)
    OnStack(8)               the seventh argument of such a function: 0 is the return address
    InFrame("rdi", 0)        fn syscall_rust_handler(frame: *mut SyscallFrame), the number being frame.rax

Offsets are in bytes, every value is eight bytes wide, little-endian.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from exogdb.abi.stub.disassembly import GENERAL_REGISTERS
from exogdb.errors import FormatError
from exogdb.x86.memory import ReadableMemory

__all__ = ["InFrame", "InRegister", "Location", "OnStack", "describe_location", "parse_location", "read_location"]

_FARTHEST = 4096
_PLACE = re.compile(r"\[(?P<base>\w+)\+(?P<offset>0x[0-9a-f]{1,16}|\d{1,19})\]|(?P<register>\w+)", re.ASCII)


@dataclass(frozen=True)
class InRegister:
    """In a general register, named in its 64-bit form without a sign: `rdi`."""

    name: str


@dataclass(frozen=True)
class OnStack:
    """`offset` bytes above rsp as it is at the first instruction, where offset 0 is the return address."""

    offset: int


@dataclass(frozen=True)
class InFrame:
    """`offset` bytes into a structure (the saved frame) whose address is in the register `pointer`."""

    pointer: str
    offset: int


Location: TypeAlias = InRegister | OnStack | InFrame


def describe_location(location: Location) -> str:
    """The location as a user would write it.

    >>> [describe_location(where) for where in (InRegister("rdi"), OnStack(8), InFrame("rdi", 0))]
    ['rdi', '[rsp+0x8]', '[rdi+0x0]']
    """
    match location:
        case InRegister(name):
            return name
        case OnStack(offset):
            return f"[rsp+{offset:#x}]"
        case InFrame(pointer, offset):
            return f"[{pointer}+{offset:#x}]"


def parse_location(text: str) -> Location:
    """The opposite of `describe_location`. `[rsp+N]` is the stack, `[REGISTER+N]` a frame behind that register.

    >>> [parse_location(text) for text in ("rdi", "[rsp+0x8]", "[rdi+0x70]")]
    [InRegister(name='rdi'), OnStack(offset=8), InFrame(pointer='rdi', offset=112)]

    :raise FormatError: it has another form, there is no such register, or the offset is 4096 bytes or more.
    """
    found = _PLACE.fullmatch(text)
    register = (found["base"] or found["register"]) if found is not None else None
    if found is None or register not in GENERAL_REGISTERS or found["register"] == "rsp":
        raise FormatError(f"{text!r} is no place: write `rdi`, `[rsp+0x8]` or `[rdi+0x70]`")
    if found["register"]:
        return InRegister(found["register"])
    offset = int(found["offset"], 16 if found["offset"].startswith("0x") else 10)
    if offset >= _FARTHEST:
        raise FormatError(f"{text!r} is no place: frames and arguments are within {_FARTHEST} bytes")
    return OnStack(offset) if found["base"] == "rsp" else InFrame(found["base"], offset)


def read_location(location: Location, registers: Mapping[str, int], memory: ReadableMemory) -> int:
    """The 64-bit value at `location`, with `registers` as they are at the function's first instruction.

    >>> read_location(InRegister("rdi"), {"rdi": 101}, memory=None)
    101

    :raise exogdb.errors.MemoryFault: the stack or the frame cannot be read.
    """
    match location:
        case InRegister(name):
            return registers[name]
        case OnStack(offset):
            return int.from_bytes(memory.read(registers["rsp"] + offset, 8), "little")
        case InFrame(pointer, offset):
            return int.from_bytes(memory.read(registers[pointer] + offset, 8), "little")
