"""What an engine sees of a system call: that a CPU entered the kernel, and that a call is about to return.

The two are seen at different places, so they share only what the entry stub leaves alone between them: the
address space (CR3), the thread pointer (FS base) and the callee-saved registers. `Pairing` joins them by that.
"""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Entry", "Event", "InHandler", "Return", "address_space"]

# CR3 bits 11:0 hold flags or the PCID, bits 63:52 flags (Intel SDM Vol. 3A, 4.5.2): not the page table's address.
_PAGE_TABLE_MASK = 0x000F_FFFF_FFFF_F000


def address_space(cr3: int) -> int:
    """The physical address of the top page table in `cr3`: what names an address space.

    >>> hex(address_space(0x8000_0000_0123_4005))
    '0x1234000'
    """
    return cr3 & _PAGE_TABLE_MASK


@dataclass(slots=True)
class Entry:
    """A CPU stands at the first instruction of the entry stub.

    `cpu` is None when it cannot be told. `preserved` holds the callee-saved registers (rbp rbx r12 r13 r14 r15, or
    those of them that the stub keeps) in whatever form the engine has them; only equality matters. `time_ns` is on
    the engine's clock. `user_rip` is the address after the `syscall` instruction (rcx). `kernel_stack_top` is the
    start of the thread's kernel stack, if the engine has looked: it does so for exec, which changes all else.
    `repeats`: the CPU's last event was the very same, with all registers. `interruptible`: interrupts are on, so
    that the CPU may have been taken away before the first instruction. `process_id` is the kernel's own number of
    the process, if the engine has looked.
    """

    cpu: int | None
    space: int
    fs_base: int
    preserved: object
    number: int
    arguments: tuple[int, int, int, int, int, int]
    user_rip: int
    user_rsp: int
    time_ns: int | None
    kernel_stack_top: int | None = None
    repeats: bool = False
    interruptible: bool = False
    process_id: int | None = None


@dataclass(slots=True)
class Return:
    """A CPU stands after the dispatcher. `result` is None where it is not in a register there.

    `kernel_stack` is its rsp there; `user_rsp` is that of the caller. Either is None where the engine lacks it.
    `kernel_stack_top`, `repeats` and `interruptible` are as in `Entry`.
    """

    cpu: int | None
    space: int
    fs_base: int
    preserved: object
    result: int | None
    kernel_stack: int | None
    user_rsp: int | None
    time_ns: int | None
    kernel_stack_top: int | None = None
    repeats: bool = False
    interruptible: bool = False


@dataclass(slots=True)
class InHandler:
    """A CPU stands at the first instruction of an exec's handler, its rsp being `kernel_rsp`."""

    cpu: int | None
    space: int
    kernel_rsp: int


Event: TypeAlias = Entry | Return | InHandler
