"""The registers as the stub left them for the dispatcher, while that has only begun.

Debug info has a function's parameters from behind its prologue on. Up to the first branch or call they are where
the stub put them, too, in every register that the instructions so far leave alone.
"""

import gdb

from exogdb.abi.dispatch.prologue import find_unchanged
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import UnavailableError
from exogdb.target.call.frame_registers import read_frame_register
from exogdb.target.call.parameter import function_range
from exogdb.x86.memory import ReadableMemory

__all__ = ["StartRegisters", "find_start_registers"]

_WORD = 8


class StartRegisters(dict[str, int]):
    """Register name -> value at the dispatcher's first instruction, for `unchanged` ones read when asked for."""

    def __init__(self, frame: gdb.Frame, unchanged: frozenset[str], rsp: int) -> None:
        super().__init__(rsp=rsp)
        self._frame = frame
        self._unchanged = unchanged

    def __missing__(self, name: str) -> int:
        if name not in self._unchanged:
            raise UnavailableError(f"the dispatcher has changed {name} already")
        return read_frame_register(self._frame, name)


def find_start_registers(
    path: EntryPath, stub: gdb.Frame, inside: list[gdb.Frame], memory: ReadableMemory
) -> StartRegisters | None:
    """The registers at the dispatcher's start; None once a branch or a call may lie behind it.

    `inside` is what `stub` called. Without debug info, which says where the function ends, only its first
    instruction counts. The guest must be stopped; nothing changes.
    """
    start = path.dispatcher.address if path.dispatcher is not None else None
    if start is None or len(inside) != 1 or inside[0].level() != 0:
        return None
    function = function_range(inside[0])
    if function.start != start:
        return None
    unchanged = find_unchanged(memory, function, inside[0].pc())
    try:
        rsp = read_frame_register(stub, "rsp") - _WORD
    except UnavailableError:
        return None
    return StartRegisters(inside[0], unchanged, rsp) if unchanged else None
