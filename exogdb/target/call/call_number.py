"""Which system call a stub frame of a backtrace belongs to.

The number is in the saved frame where the stub saves rax, else still in its register on the way in. Where the stub
keeps neither, the frames inside tell: the dispatcher's own parameter if debug info has it, or a handler's name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gdb

from exogdb.abi.frame_base import find_frame_base, read_stack_top
from exogdb.abi.numbers import NumberTable
from exogdb.abi.stub.entry_path import NUMBER_REGISTER, EntryPath
from exogdb.abi.stub.layout import ARGUMENT_PASSING
from exogdb.abi.stub.location import InRegister, describe_location, read_location
from exogdb.abi.stub.stub_state import Lost, StubState, read_held
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable
from exogdb.target.breakpoint.returned import find_returned
from exogdb.target.call.dispatcher_start import find_start_registers
from exogdb.target.call.frame_registers import FrameRegisters, read_frame_register
from exogdb.target.call.parameter import read_parameter
from exogdb.target.symbols import find_symbol
from exogdb.x86.memory import ReadableMemory

__all__ = [
    "FoundNumber",
    "confirm_number",
    "find_number",
    "frames_inside",
    "guess_number",
    "handler_in",
    "is_dispatcher",
    "read_saved_number",
]

_BOTH = "the number is from a slot of the frame that the result goes to: it may be there already"
_HANDLER = re.compile(r"(?:^|::|_)sys_(\w+)$")


@dataclass(frozen=True)
class FoundNumber:
    """A system-call number and where it was found: `register`, `frame`, or a function's name.

    `doubt` is a sentence if it may be something else.
    """

    number: int
    source: str
    doubt: str = ""


def find_number(
    path: EntryPath, state: StubState, stub: gdb.Frame, memory: ReadableMemory, table: NumberTable
) -> FoundNumber | Unavailable:
    """The number of the call in whose stub frame `stub` stands. The guest must be stopped; nothing changes.

    `memory` is the kernel's, also where the user's page tables are loaded (`KernelMemory`).
    """
    inside = list(frames_inside(stub))
    if not inside and not state.after_dispatch:
        return _read_register(state, stub, memory) or Unavailable("the stub has lost it")
    saved = _read_slot(path, state, stub, memory)
    if saved is not None and not saved.doubt:
        return saved
    found = (
        _read_start(path, stub, inside, memory)
        or _read_parameter(path, inside)
        or _recognise_handler(inside, table)
        or (_recall(stub) if not inside else None)
    )
    return found or saved or Unavailable(_explain_loss(path, inside))


def _explain_loss(path: EntryPath, inside: list[gdb.Frame]) -> str:
    slot = path.frame.find_slot(NUMBER_REGISTER)
    if slot is None:
        return f"the stub saves it nowhere, and {'no frame inside has it' if inside else 'the call is over'}"
    return "its slot holds the result" if slot.restored_to else "its slot cannot be read"


def _recall(stub: gdb.Frame) -> FoundNumber | None:
    """The number that a breakpoint on the call's return knows from its entry."""
    try:
        number = find_returned(read_frame_register(stub, "rsp"))
    except UnavailableError:
        return None
    return FoundNumber(number, "the breakpoint that saw its entry") if number is not None else None


def frames_inside(stub: gdb.Frame) -> Iterator[gdb.Frame]:
    """The frames that the stub called, the outermost first."""
    frame = stub.newer()
    while frame is not None:
        yield frame
        frame = frame.newer()


def is_dispatcher(path: EntryPath, frame: gdb.Frame) -> bool:
    """Whether `frame` is the dispatcher's own: it is gone once the dispatcher has jumped into a handler."""
    function = frame.function()
    if function is None or path.dispatcher is None:
        return False
    return int(function.value().address or 0) % (1 << 64) == path.dispatcher.address


def _read_register(state: StubState, stub: gdb.Frame, memory: ReadableMemory) -> FoundNumber | None:
    held = state.registers[NUMBER_REGISTER]
    if isinstance(held, Lost):
        return None
    registers = FrameRegisters(stub)
    try:
        gs_base = registers["gs_base" if state.gs is Gs.KERNEL else "k_gs_base"]
        return FoundNumber(read_held(held, registers, gs_base, memory), "register")
    except UnavailableError:
        return None


def _read_slot(path: EntryPath, state: StubState, stub: gdb.Frame, memory: ReadableMemory) -> FoundNumber | None:
    slot = path.frame.find_slot(NUMBER_REGISTER)
    if slot is None:
        return None
    if state.after_dispatch and stub.newer() is None and slot.restored_to:
        return None  # it holds the result by now
    try:
        return read_saved_number(path, _find_top(path, state, stub, memory), memory)
    except UnavailableError:
        return None


def _find_top(path: EntryPath, state: StubState, stub: gdb.Frame, memory: ReadableMemory) -> int:
    """The top of the call's kernel stack: by rsp, or where rsp has left it already, by where the stub got it."""
    if state.depth is not None:
        return read_frame_register(stub, "rsp") + state.depth
    return read_stack_top(
        path, read_frame_register(stub, "gs_base" if state.gs is Gs.KERNEL else "k_gs_base"), memory
    )


def read_saved_number(path: EntryPath, top: int, memory: ReadableMemory) -> FoundNumber | None:
    """The number in the frame below `top`, if the stub saves it.

    :raise exogdb.errors.MemoryFault: the frame cannot be read.
    """
    slot = path.frame.find_slot(NUMBER_REGISTER)
    if slot is None:
        return None
    value = memory.read(find_frame_base(path, top) + slot.offset, 8)
    return FoundNumber(int.from_bytes(value, "little"), "frame", _BOTH if slot.restored_to else "")


def guess_number(start: int, end: int, memory: ReadableMemory, table: NumberTable) -> FoundNumber | None:
    """The number whose handler a return address between `start` and `end` on a kernel stack leads into.

    A guess: stale return addresses look the same. The outermost one is taken.
    """
    for at in range(end - 8, start - 8, -8):
        address = int.from_bytes(memory.read(at, 8), "little")
        symbol = find_symbol(address) if address >> 63 else None
        found = _HANDLER.search(symbol.name) if symbol is not None and symbol.offset else None
        entry = table.by_name.get(found[1]) if found is not None else None
        if symbol is not None and entry is not None:
            return FoundNumber(entry.number, f"a guess: return address into {symbol.name} on the stack")
    return None


def confirm_number(saved: FoundNumber | None, guess: FoundNumber | None) -> FoundNumber | None:
    """The saved number, without its doubt if a return address on the stack says the same; else the guess."""
    if saved is not None and guess is not None and saved.number == guess.number:
        return replace(saved, doubt="")
    return saved or guess


def _read_start(
    path: EntryPath, stub: gdb.Frame, inside: list[gdb.Frame], memory: ReadableMemory
) -> FoundNumber | None:
    """The number where the stub left it, while the dispatcher is in its prologue."""
    registers = find_start_registers(path, stub, inside, memory)
    if registers is None or path.dispatcher is None or path.dispatcher.number is None:
        return None
    try:
        number = read_location(path.dispatcher.number, registers, memory)
    except UnavailableError:
        return None
    return FoundNumber(number, describe_location(path.dispatcher.number))


def _read_parameter(path: EntryPath, inside: list[gdb.Frame]) -> FoundNumber | None:
    """The dispatcher's number parameter, if debug info says where it is now."""
    dispatcher = path.dispatcher
    if dispatcher is None or not inside or not isinstance(dispatcher.number, InRegister):
        return None
    if not is_dispatcher(path, inside[0]) or dispatcher.number.name not in ARGUMENT_PASSING:
        return None
    found = read_parameter(inside[0], ARGUMENT_PASSING.index(dispatcher.number.name))
    return FoundNumber(found[0], f"{found[1]} of {inside[0].function()}") if found is not None else None


def _recognise_handler(inside: list[gdb.Frame], table: NumberTable) -> FoundNumber | None:
    """The number whose handler is among the frames, by name: `sys_ipc_send`, `__x64_sys_getppid`."""
    for frame in inside:
        name = _handler_name(frame)
        entry = table.by_name.get(name) if name else None
        if entry is not None:
            return FoundNumber(entry.number, frame.name() or name)
    return None


def handler_in(inside: list[gdb.Frame]) -> gdb.Frame | None:
    """The outermost frame of a function named like a handler."""
    return next((frame for frame in inside if _handler_name(frame)), None)


def _handler_name(frame: gdb.Frame) -> str:
    found = _HANDLER.search((frame.name() or "").split("(")[0])
    return found[1] if found is not None else ""
