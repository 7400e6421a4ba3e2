"""The six arguments of a call in progress, and the parameters of its handler.

An argument is where the stub saved it, else what the dispatcher's or the handler's own parameter is now by debug
info. Those are the compiler's word for the moment GDB stands at; what it calls optimized out, and what a call may
have overwritten since, is unavailable.
"""

import gdb

from exogdb.abi.frame import SavedFrame
from exogdb.abi.signature import Parameter
from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, EntryPath
from exogdb.abi.stub.layout import ARGUMENT_PASSING
from exogdb.abi.stub.location import InRegister, Location, OnStack, describe_location, read_location
from exogdb.abi.stub.stub_state import StubState
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.call.call_number import frames_inside, handler_in, is_dispatcher
from exogdb.target.call.dispatcher_start import find_start_registers
from exogdb.target.call.parameter import function_parameters, read_parameter
from exogdb.target.symbols import find_address, find_addresses
from exogdb.x86.memory import ReadableMemory

__all__ = ["find_argument_values", "find_handler_name", "find_parameters"]

_HANDLERS = ("sys_{}", "__x64_sys_{}")
# Linux's have one parameter, the frame (arch/x86/include/asm/syscall_wrapper.h), which is not the first argument.
_TAKES_FRAME = "__x64_sys_"
_NOT_KEPT = Unavailable("nothing on the way keeps it")


def find_handler_name(name: str) -> str:
    """The symbol of the handler of the call `name`, empty if there is none with a usual name."""
    return next(iter(find_addresses(pattern.format(name) for pattern in _HANDLERS)), "")


def find_parameters(handler: str) -> list[Parameter]:
    """The parameters that debug info gives the function `handler` for the arguments, in order; none without it."""
    address = find_address(handler) if handler and not handler.startswith(_TAKES_FRAME) else None
    block = gdb.block_for_pc(address) if address is not None else None
    return [Parameter(symbol.print_name, _type_name(symbol)) for symbol in function_parameters(block)]


def _type_name(symbol: gdb.Symbol) -> str:
    """The name that the debug info has: GDB would write Rust's pointers in the language of the moment."""
    return (symbol.type.name if symbol.type is not None else None) or str(symbol.type)


def find_argument_values(
    path: EntryPath, frame: SavedFrame, stub: gdb.Frame | None, state: StubState | None, memory: ReadableMemory
) -> list[tuple[Value, str]]:
    """Value and source of each of the six arguments. `stub` is the stub's frame in GDB's backtrace.

    In the stub itself (`state`) only what `frame` has counts.
    """
    inside = list(frames_inside(stub)) if stub is not None and state is None else []
    first = _read_start(path, stub, inside, memory)
    if first is not None:
        return first
    values: list[tuple[Value, str]] = []
    for position, register in enumerate(ARGUMENT_REGISTERS):
        saved = frame.find(register)
        if saved is not None and isinstance(saved.value, Reading) and not _is_result(state):
            values.append((saved.value, saved.where))
        else:
            values.append(_from_frames(path, inside, position))
    return values


def _is_result(state: StubState | None) -> bool:
    """Behind the dispatcher the registers hold what goes back to the user, not what came in."""
    return state is not None and state.after_dispatch


def _read_start(
    path: EntryPath, stub: gdb.Frame | None, inside: list[gdb.Frame], memory: ReadableMemory
) -> list[tuple[Value, str]] | None:
    """The arguments where the stub left them, while the dispatcher is in its prologue."""
    registers = find_start_registers(path, stub, inside, memory) if stub is not None else None
    if registers is None or path.dispatcher is None:
        return None
    values: list[tuple[Value, str]] = []
    for place in path.dispatcher.arguments:
        if place is None:
            values.append((Unavailable("the stub lost it"), "-"))
            continue
        try:
            values.append((Reading(read_location(place, registers, memory), "gdb"), describe_location(place)))
        except UnavailableError as error:
            values.append((Unavailable(error.reason), describe_location(place)))
    return values


def _from_frames(path: EntryPath, inside: list[gdb.Frame], position: int) -> tuple[Value, str]:
    if not inside or path.dispatcher is None:
        return _NOT_KEPT, "-"
    place = _parameter_position(path.dispatcher.arguments[position])
    handler = handler_in(inside)
    tried = [(inside[0], place)] if is_dispatcher(path, inside[0]) else []
    tried += [(handler, position)] if handler is not None else []
    for frame, index in tried:
        found = read_parameter(frame, index) if index is not None else None
        if found is not None:
            function = (frame.name() or "?").rsplit("::", 1)[-1]
            return Reading(found[0], "gdb"), f"{found[1]} of {function}"
    return _NOT_KEPT, "-"


def _parameter_position(location: Location | None) -> int | None:
    """Which parameter of a C function is at `location` when it starts (System V ABI, x86-64, 3.2.3)."""
    match location:
        case InRegister(name) if name in ARGUMENT_PASSING:
            return ARGUMENT_PASSING.index(name)
        case OnStack(offset):
            return len(ARGUMENT_PASSING) + offset // 8 - 1
    return None
