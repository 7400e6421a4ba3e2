"""A function's parameters as debug info has them at this moment, without those that calls have overwritten."""

import gdb

from exogdb.abi.dispatch.prologue import find_unchanged, is_near_end
from exogdb.abi.variable import KEPT_BY_CALLS, find_registers, is_kept_by_calls
from exogdb.target.cpus import selected_cpu
from exogdb.target.gdb_command import ask_gdb
from exogdb.target.memory import VirtualMemory
from exogdb.x86.word import MASK_64

__all__ = ["function_parameters", "function_range", "is_in_prologue", "is_kept", "read_parameter"]


def read_parameter(frame: gdb.Frame, index: int) -> tuple[int, str] | None:
    """The bits of parameter `index` of the function of `frame`, and its name; None if nothing has it any more.

    The guest must be stopped; nothing changes.
    """
    if is_in_prologue(frame):
        return None  # debug info describes parameters from behind the prologue on
    try:
        parameters = function_parameters(frame.block())
        if index >= len(parameters) or not is_kept(frame, parameters[index]):
            return None
        value = frame.read_var(parameters[index])
        if value.is_optimized_out:
            return None
        return int(value) & MASK_64, parameters[index].print_name
    except (gdb.error, RuntimeError, ValueError):
        return None


def function_parameters(block: gdb.Block | None) -> list[gdb.Symbol]:
    """The parameters of the function that `block` lies in, in order."""
    while block is not None and block.function is None:
        block = block.superblock
    return [symbol for symbol in block if symbol.is_argument] if block is not None else []


def is_in_prologue(frame: gdb.Frame) -> bool:
    """Whether `frame` is the innermost one and its function is still setting up its stack frame.

    Behind the prologue is where the line table has its second row for the function; GDB stops there, too.
    """
    function = frame.function()
    if frame.level() != 0 or function is None:
        return False
    start = _address(function)
    rows = sorted(row.pc for row in function.symtab.linetable() if row.pc > start)
    return start <= frame.pc() < next(iter(rows), start)


def is_kept(frame: gdb.Frame, parameter: gdb.Symbol) -> bool:
    """Whether what GDB reads for `parameter` is still its value: not once the function has called another one and
    that may have changed it, nor where the function has given back the register that leads to it.
    """
    called = frame.newer()
    while called is not None and called.type() == gdb.INLINE_FRAME:
        called = called.newer()
    if called is None:
        return not find_registers(_describe(frame, parameter), frame.pc()) & _find_given_back(frame)
    if called.type() == gdb.SIGTRAMP_FRAME:
        return True  # an interrupt has saved every register
    description, pc = _describe(frame, parameter), frame.pc() - 1
    if is_kept_by_calls(description, pc):
        return True
    registers = find_registers(description, pc)
    unchanged = _find_unchanged(called) if called.level() == 0 else frozenset()
    return bool(registers) and registers <= KEPT_BY_CALLS | unchanged


def _find_given_back(frame: gdb.Frame) -> set[str]:
    """The registers that calls keep and that are the caller's, for all that can be seen, in the innermost `frame`.

    Behind the `pop rbp` of its epilogue a function's variables are still where rbp leads, by its debug info; by
    then that is into the caller's frame, as it is before the prologue has set rbp. GDB shows what is there.
    """
    function: gdb.Frame | None = frame
    while function is not None and function.type() == gdb.INLINE_FRAME:
        function = function.older()
    caller = function.older() if function is not None else None
    if function is None or caller is None:
        return set()
    same = {name for name in KEPT_BY_CALLS - {"rsp"} if frame.read_register(name) == caller.read_register(name)}
    near_end = is_near_end(VirtualMemory(selected_cpu()), function.pc())
    return same if near_end else same & _find_unchanged(function)


def _find_unchanged(function: gdb.Frame) -> frozenset[str]:
    """The registers that `function`, the innermost that is not inlined, has not changed since it began."""
    return find_unchanged(VirtualMemory(selected_cpu()), function_range(function), function.pc())


def function_range(frame: gdb.Frame) -> range:
    """Where the code of the function of `frame` is, by debug info; without it nothing but the frame's address."""
    nothing = range(frame.pc(), frame.pc())
    try:
        block: gdb.Block | None = frame.block()
    except RuntimeError:
        return nothing
    while block is not None and block.function is None:
        block = block.superblock
    return range(block.start, block.end) if block is not None else nothing


def _describe(frame: gdb.Frame, variable: gdb.Symbol) -> str:
    return ask_gdb(f"info address {variable.name}", frame)


def _address(function: gdb.Symbol) -> int:
    return int(function.value().address or 0) & MASK_64
