"""The caller's side of a system call: return addresses along the frame pointers, with names.

A function compiled with frame pointers begins `push rbp; mov rbp, rsp`, so that rbp points at the caller's rbp,
and the return address lies above it (System V ABI, x86-64 supplement, 3.2.2)::

    rbp + 8   return address into the caller
    rbp       the caller's rbp

Nothing in memory says whether a program was compiled so. A chain is followed only while it leads up the stack and
every return address lies behind a call instruction of a known program; what it yields is marked as such.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["SymbolNames", "demangle", "walk_frames"]

_MOST_FRAMES = 32
_LARGEST_FRAME = 1 << 20
_LEGACY_PART = re.compile(r"(\d+)")
_HASH = re.compile(r"^h[0-9a-f]{16}$")
_NEAR_CALL = 0xE8
_INDIRECT_CALL = 0xFF


@dataclass
class SymbolNames:
    """Names of addresses, from symbols by name."""

    symbols: Mapping[str, int]
    _sorted: list[tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._sorted = sorted((address, name) for name, address in self.symbols.items())

    def describe(self, address: int) -> str:
        """`name+0x12`, or an empty string below the first symbol.

        >>> SymbolNames({"main": 0x1000}).describe(0x1012)
        'main+0x12'
        """
        index = bisect_right(self._sorted, (address, chr(0x10FFFF))) - 1
        if index < 0:
            return ""
        start, name = self._sorted[index]
        return demangle(name) + (f"+{address - start:#x}" if address != start else "")


def demangle(name: str) -> str:
    """A Rust or C++ name of the `_ZN...E` kind as it was written; others as they are.

    >>> demangle("_ZN3exo5calls8ipc_send17hc040f582ec3c1632E"), demangle("main")
    ('exo::calls::ipc_send', 'main')
    """
    if not name.startswith("_ZN"):
        return name
    parts, rest = [], name[3:]
    while (length := _LEGACY_PART.match(rest)) is not None:
        end = length.end() + int(length[1])
        parts.append(rest[length.end() : end])
        rest = rest[end:]
    if not rest.startswith("E") or not parts:
        return name
    return "::".join(part for part in parts if not _HASH.match(part))


def walk_frames(memory: ReadableMemory, rbp: int, rsp: int, is_code: Callable[[int], bool]) -> list[int]:
    """Return addresses outwards from a function whose frame pointer is `rbp`, as long as they hold good."""
    found: list[int] = []
    below = rsp
    while below <= rbp < below + _LARGEST_FRAME and rbp % 8 == 0 and len(found) < _MOST_FRAMES:
        try:
            pair = memory.read(rbp, 16)
            outer, address = int.from_bytes(pair[:8], "little"), int.from_bytes(pair[8:], "little")
            if not is_code(address) or not _is_behind_call(memory.read(address - 7, 7)):
                break
        except MemoryFault:
            break
        found.append(address)
        below, rbp = rbp + 16, outer
    return found


def _is_behind_call(code: bytes) -> bool:
    """Whether the last of these seven bytes can end a call: relative, or through a register or memory."""
    if code[2] == _NEAR_CALL:
        return True
    return any(code[-size] == _INDIRECT_CALL and code[1 - size] >> 3 & 7 == 2 for size in (2, 3, 4, 6, 7))
