"""The user programs whose symbols GDB has: which of them an address belongs to, and their constant data."""

from dataclasses import dataclass
from pathlib import Path

import gdb

from exogdb.errors import FormatError
from exogdb.trace.image import ConstantData, parse_constant_data

__all__ = ["Program", "find_caller", "read_programs"]

_LOWER_HALF_END = 1 << 47
_SYSCALL = b"\x0f\x05"


@dataclass(frozen=True)
class Program:
    """A user program, linked at a fixed address (which is where its file says it is)."""

    name: str
    path: Path
    data: ConstantData


def find_caller(programs: list[Program], user_rip: int) -> Program | None:
    """The program that made the call which returns to `user_rip`.

    Programs may share addresses, and not all are known. Only one whose file has a SYSCALL right before that
    address counts, and only if it is the only one.
    """
    found = [each for each in programs if each.data.find(user_rip - len(_SYSCALL), len(_SYSCALL)) == _SYSCALL]
    return found[0] if len(found) == 1 else None


def read_programs() -> list[Program]:
    """Every object file of GDB's that lies in user space. Reads the files; nothing from the guest."""
    found = []
    for objfile in gdb.objfiles():
        data = _read(objfile.filename)
        if data is not None and data.end <= _LOWER_HALF_END:
            path = Path(objfile.filename or "")
            found.append(Program(path.stem, path, data))
    return found


def _read(name: str | None) -> ConstantData | None:
    try:
        return None if name is None else parse_constant_data(Path(name).read_bytes())
    except (OSError, FormatError):
        return None  # separate debug info, or a file that is gone: then its text is simply not shown
