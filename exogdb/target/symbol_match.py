"""Whether the code in a kernel's symbol file is the code that runs: symbols of another build name all wrongly.

A few pieces of each file's code are compared with the guest's memory, once for each file and connection. Kernels
patch some of their own instructions when they boot, so some pieces may differ. Where the code is not mapped
(before the kernel has set up its page tables, or with a program's under page-table isolation) nothing can be said.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import gdb

from exogdb.errors import MemoryFault
from exogdb.target.memory import VirtualMemory
from exogdb.target.sections import find_kernel_code

__all__ = ["find_other_builds"]

_PIECES, _SIZE = 48, 16
_LEAST_COMPARED = 8
# Every fourth piece is looked at first: where a third of all differ, some of these nearly always do.
_FIRST = slice(None, None, 4)
# A kernel that patches itself keeps most of its code; behind a change of another build nothing is in place.
_MOST_DIFFERENT = 1 / 3

# By file and connection; the warning is empty where the code is the same.
_known: dict[tuple[str, int], str] = {}


def find_other_builds(memory: VirtualMemory) -> list[str]:
    """A warning for each kernel file that GDB has loaded and that is not what runs. The guest must be stopped.

    Code in the upper half is compared, with the address space of `memory`. Nothing in the guest changes.

    :raise TargetLostError: the connection broke.
    """
    connection = gdb.selected_inferior().connection_num or 0
    loaded = [objfile.filename for objfile in gdb.objfiles() if objfile.filename is not None]
    new = [name for name in loaded if (name, connection) not in _known]
    if new:
        code = find_kernel_code(gdb.execute("maint info sections -all-objects", to_string=True))
        for name in new:
            warning = _compare(name, code.get(name, []), memory)
            if warning is not None:
                _known[name, connection] = warning
    return list(filter(None, (_known.get((name, connection), "") for name in loaded)))


def _compare(name: str, code: Sequence[tuple[int, int, int]], memory: VirtualMemory) -> str | None:
    """The warning; empty if there is no reason for one, None if too little is mapped to tell."""
    if not code:
        return ""
    pieces = _sample(name, code)
    first = pieces[_FIRST]
    if len(first) >= _LEAST_COMPARED and all(_read(memory.read, address) == data for address, data in first):
        return ""
    pairs = [(data, found) for address, data in pieces if (found := _read(memory.read, address)) is not None]
    if len(pairs) < max(_LEAST_COMPARED, len(pieces) // 2):
        return None if len(pieces) >= _LEAST_COMPARED else ""
    different = sum(data != found for data, found in pairs)
    if different <= len(pairs) * _MOST_DIFFERENT:
        return ""
    return (
        f"warning: {name} is not the kernel that runs: of {len(pairs)} pieces of its code, {different} differ from"
        " the guest's memory, so names, types and source lines are wrong; load the right one with `file FILE`"
    )


def _sample(name: str, code: Sequence[tuple[int, int, int]]) -> list[tuple[int, bytes]]:
    """Addresses and contents of pieces of the file's code, evenly spaced; none of a file that cannot be read."""
    step = max(_SIZE, sum(size for _, _, size in code) // _PIECES)
    pieces = []
    try:
        with Path(name).open("rb") as file:
            for address, offset, size in code:
                for start in range(0, size - _SIZE + 1, step):
                    file.seek(offset + start)
                    pieces.append((address + start, file.read(_SIZE)))
    except OSError:
        return []  # GDB has read it, and it is there no more
    # A file of symbols alone may have zeros where its code would be.
    return [(address, data) for address, data in pieces if len(data) == _SIZE and any(data)]


def _read(read: Callable[[int, int], bytes], address: int) -> bytes | None:
    try:
        return read(address, _SIZE)
    except MemoryFault:
        return None
