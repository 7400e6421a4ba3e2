"""The caller's backtrace of each traced call, for `exo-syscall trace --stack`."""

from collections import OrderedDict

from exogdb.errors import FormatError
from exogdb.launch.elf import read_elf
from exogdb.target.programs import Program
from exogdb.trace.backtrace import SymbolNames, walk_frames
from exogdb.trace.call import Call
from exogdb.trace.sink import StoppedCpu

__all__ = ["Callers"]

_MOST_CALLS = 4096


class Callers:
    """Gathers frames at the entry where the engine stops there; else the caller alone is known.

    Frames are named from the programs' files: this also runs on a thread that must not call GDB.
    """

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._frames: OrderedDict[int, list[int]] = OrderedDict()
        self._names = {program.name: _read_names(program) for program in programs}

    def at_entry(self, call: Call, cpu: StoppedCpu) -> None:
        """Follow the frame pointers of the caller, whose CPU is stopped at the stub's first instruction."""
        registers = cpu.registers()
        self._frames[call.sequence] = walk_frames(cpu, registers["rbp"], registers["rsp"], self._is_code)
        if len(self._frames) > _MOST_CALLS:
            self._frames.popitem(last=False)

    def at_return(self, call: Call, cpu: StoppedCpu) -> None:
        """Nothing to be read: the caller's frames are those of its entry."""

    def find_stack(self, call: Call) -> list[str]:
        """One line a frame, the caller first."""
        if call.user_rip is None:
            return []
        outer = self._frames.get(call.sequence, [])
        lines = [f"#0 {self._describe(call.user_rip)}"]
        return lines + [f"#{n} {self._describe(at)} (by frame pointer)" for n, at in enumerate(outer, start=1)]

    def _is_code(self, address: int) -> bool:
        return any(program.data.find(address, 1) is not None for program in self._programs)

    def _describe(self, address: int) -> str:
        program = next((each for each in self._programs if each.data.covers(address)), None)
        name = self._names[program.name].describe(address) if program is not None else ""
        return f"{address:#x} {name}" if name else f"{address:#x}"


def _read_names(program: Program) -> SymbolNames:
    return SymbolNames(_read_symbols(program))


def _read_symbols(program: Program) -> dict[str, int]:
    try:
        return read_elf(program.path).symbols
    except (OSError, FormatError):
        return {}  # the file is gone, or stripped in a way that leaves no table: addresses then stay bare
