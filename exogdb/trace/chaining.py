"""Where QEMU may jump from one translation block into another without going through what writes its log.

TCG patches direct jumps into each other, after which neither `cpu_tb_exec` nor `helper_lookup_tb_ptr` sees the
second block any more. It does so only for a jump whose destination lies in the page where the jumping block begins
(`translator_use_goto_tb`, accel/tcg/translator.c, 7.2 to 10.0), and never for `syscall`, `ret`, a write of CR3 or
any jump through a register. `log nochain` forbids it altogether, which slows everything down that the guest does.
"""

import re
from collections.abc import Iterable
from contextlib import suppress

from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["is_any_chained"]

_PAGE_SIZE = 4096
# call, jmp and jcc with 32 bits, then jmp, jcc, loop and jrcxz with 8 (Intel SDM Vol. 2, opcode maps).
_NEAR = re.compile(rb"(?=(?:[\xe8\xe9]|\x0f[\x80-\x8f])(.{4}))", re.DOTALL)
_SHORT = re.compile(rb"(?=[\xeb\x70-\x7f\xe0-\xe3](.))", re.DOTALL)


def is_any_chained(points: Iterable[int], memory: ReadableMemory) -> bool:
    """Whether a direct jump may lead to one of `points` from within its page. True where the code cannot be read.

    What merely looks like such a jump counts, too. A block may go on into the next page, so its jump may be there.
    """
    return any(_is_chained(point, memory) for point in points)


def _is_chained(point: int, memory: ReadableMemory) -> bool:
    start = point & -_PAGE_SIZE
    try:
        code = memory.read(start, _PAGE_SIZE)
    except MemoryFault:
        return True
    with suppress(MemoryFault):  # no block goes on where nothing is mapped
        code += memory.read(start + _PAGE_SIZE, _PAGE_SIZE)
    jumps = (jump for form in (_NEAR, _SHORT) for jump in form.finditer(code))
    return any(start + jump.end(1) + int.from_bytes(jump[1], "little", signed=True) == point for jump in jumps)
