"""A system call's arguments by the names and types of its handler's parameters.

Names and types come from the handler's debug info; values are the user's registers as the place kept them, else
what GDB reads as the parameter of the handler in front of it. Reads memory only.
"""

from collections.abc import Sequence

import gdb

from exogdb.abi.argument import ArgumentText
from exogdb.errors import UnavailableError
from exogdb.target.breakpoint.hit import Hit
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.symbols import find_address

__all__ = ["name_arguments", "read_arguments"]

_LONGEST_TEXT = 40
_OUTPUTS = ("buf", "out", "dst", "dest")
_LENGTHS = ("len", "size", "count", "bytes")


def name_arguments(cpu: Cpu, handler: str, values: Sequence[int | None]) -> list[ArgumentText]:
    """The arguments that `handler` takes, of these six; all, as they are, if nothing is known about it.

    `cpu` lends its address space. The guest must be stopped; nothing changes.
    """
    function = _find_function(handler)
    if function is None:
        return [ArgumentText(f"arg{i + 1}", _as_hex(value)) for i, value in enumerate(values)]
    parameters = _find_parameters(function)
    return [_to_text(cpu, index, parameters, values) for index in range(len(parameters))]


def read_arguments(hit: Hit, handler: str) -> list[ArgumentText]:
    """The same for a call at which a breakpoint stopped, also where only the handler's parameter has a value."""
    function, values = _find_function(handler), list(hit.arguments)
    for index, symbol in enumerate(_find_parameters(function)):
        if function is not None and values[index] is None and hit.result is None:
            values[index] = _read_parameter(function, symbol)
    return name_arguments(hit.cpu, handler, values)


def _find_parameters(function: gdb.Block | None) -> list[gdb.Symbol]:
    return [symbol for symbol in function if symbol.is_argument][:6] if function is not None else []


def _find_function(handler: str) -> gdb.Block | None:
    address = find_address(handler)
    block = gdb.block_for_pc(address) if address is not None else None
    while block is not None and block.superblock is not None and not block.superblock.is_static:
        block = block.superblock
    is_it = block is not None and block.function is not None and block.start == address
    return block if is_it else None


def _read_parameter(function: gdb.Block, symbol: gdb.Symbol) -> int | None:
    """What the handler's own parameter holds at its beginning, if the guest stands there."""
    frame = gdb.newest_frame()
    if not function.start <= frame.pc() < function.end:
        return None
    try:
        return int(frame.read_var(symbol))
    except (gdb.error, ValueError):
        return None


def _to_text(cpu: Cpu, index: int, parameters: Sequence[gdb.Symbol], values: Sequence[int | None]) -> ArgumentText:
    symbol, value = parameters[index], values[index]
    kind = symbol.type.strip_typedefs() if symbol.type is not None else None
    if value is None or kind is None:
        return ArgumentText(symbol.name, "unavailable")
    if kind.code != gdb.TYPE_CODE_PTR:
        return ArgumentText(symbol.name, str(_truncate(value, kind)))
    return ArgumentText(symbol.name, f"{value:#x}", _read_text(cpu, index, parameters, values))


def _truncate(value: int, kind: gdb.Type) -> int:
    """The part of the register that the parameter's type takes, with its sign."""
    bits = 8 * kind.sizeof
    value &= (1 << bits) - 1
    is_negative = kind.is_signed and value >> (bits - 1) & 1 if kind.code == gdb.TYPE_CODE_INT else False
    return value - (1 << bits) if is_negative else value


def _read_text(cpu: Cpu, index: int, parameters: Sequence[gdb.Symbol], values: Sequence[int | None]) -> str:
    """The characters behind a pointer to bytes: as many as the next parameter says, or up to a NUL."""
    kind, address = parameters[index].type, values[index]
    if kind is None or address is None or not address or not _is_text(parameters[index], kind):
        return ""
    length = _find_length(index, parameters, values)
    try:
        data = VirtualMemory(cpu).read(address, min(length or _LONGEST_TEXT, _LONGEST_TEXT))
    except UnavailableError:
        return ""
    if length is None:
        data, nul, _rest = data.partition(b"\0")
        complete = bool(nul)
    else:
        complete = length <= _LONGEST_TEXT
    text = data.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
    return f'"{text}"' + ("" if complete else "...")


def _find_length(index: int, parameters: Sequence[gdb.Symbol], values: Sequence[int | None]) -> int | None:
    if index + 1 < len(values) and any(word in parameters[index + 1].name for word in _LENGTHS):
        return values[index + 1]
    return None


def _is_text(symbol: gdb.Symbol, kind: gdb.Type) -> bool:
    """Whether a pointer leads to bytes that the call reads. What it will write to has nothing to show yet.

    GDB loses Rust's `*const`, so there the parameter's name has to tell.
    """
    target = kind.strip_typedefs().target()
    is_output = symbol.name.startswith(_OUTPUTS) and not str(target).startswith("const ")
    return target.strip_typedefs().sizeof == 1 and not is_output


def _as_hex(value: int | None) -> str:
    return "unavailable" if value is None else f"{value:#x}"
