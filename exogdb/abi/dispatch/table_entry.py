"""Is what a run read the entry of a jump or handler table? It is if it says where the run went then.

Tables hold addresses (`jmp [table + 8*rax]`), offsets from the table or another address that the code names
(`movslq rcx, [rdx + 4*rax]; add rcx, rdx; jmp rcx`), or the addresses of descriptors that hold the handler's.
"""

from collections.abc import Callable, Set

from exogdb.abi.dispatch.trace import TableRead
from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["says_where"]

_DESCRIPTOR = 64  # bytes


def says_where(
    memory: ReadableMemory, read: TableRead, targets: Set[int], find_named: Callable[[], Set[int]]
) -> bool:
    """Whether what is at `read` leads to one of `targets`; `find_named` finds what addresses the code names."""
    try:
        raw = memory.read(read.address, read.size)
    except MemoryFault:
        return False
    value = int.from_bytes(raw, "little", signed=True)
    if value & MASK_64 in targets or (read.size == 8 and _descriptor_holds(memory, value & MASK_64, targets)):
        return True
    return any((value + base) & MASK_64 in targets for base in find_named())


def _descriptor_holds(memory: ReadableMemory, address: int, targets: Set[int]) -> bool:
    # The rest of its page, if that is less.
    size = min(_DESCRIPTOR, 0x1000 - address % 0x1000) & -8
    try:
        words = memory.read(address, size) if address % 8 == 0 else b""
    except MemoryFault:
        return False
    return any(int.from_bytes(words[at : at + 8], "little") in targets for at in range(0, len(words), 8))
