"""Numbers for what the analysis of a stub knows as expressions, such as `and(user cr3, 0xffffffffffffe7ff)`."""

from collections.abc import Callable, Mapping

from exogdb.abi.stub.symbolic import Cell, Constant, Derived, Loaded, Sum, UserValue, Value
from exogdb.errors import UnavailableError
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64, to_signed

__all__ = ["evaluate"]

_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "and": lambda one, other: one & other,
    "or": lambda one, other: one | other,
    "xor": lambda one, other: one ^ other,
    "add": lambda one, other: one + other,
    "sub": lambda one, other: one - other,
    "shl": lambda one, other: one << (other & 63),
    "sal": lambda one, other: one << (other & 63),
    "shr": lambda one, other: one >> (other & 63),
    "sar": lambda one, other: to_signed(one) >> (other & 63),
    "bts": lambda one, other: one | 1 << (other & 63),
    "btr": lambda one, other: one & ~(1 << (other & 63)),
}


def evaluate(value: Value, registers: Mapping[str, int], gs_base: int | None, memory: ReadableMemory) -> int:
    """The 64-bit number that `value` stands for in a guest with these user registers (`cr3` is one of them).

    `gs_base` is the kernel's, None if it is not known; `memory` is virtual. Nothing in the guest changes.
    :raise UnavailableError: the expression needs something that is not known.
    :raise exogdb.errors.MemoryFault: memory that it names cannot be read.

    >>> class Nothing:
    ...     def read(self, address: int, size: int) -> bytes:
    ...         raise UnavailableError("no memory here")
    >>> mask = Derived("and", (UserValue("cr3"), Constant(0xFFFFFFFFFFFFE7FF)))
    >>> hex(evaluate(mask, {"cr3": 0x527B000}, None, Nothing()))
    '0x527a000'
    """
    match value:
        case Constant(number):
            return number
        case UserValue(register) if register in registers:
            return registers[register]
        case Sum(base, offset, True):
            return (evaluate(base, registers, gs_base, memory) + offset) & MASK_64
        case Loaded(cell):
            address = _find_address(cell, registers, gs_base, memory)
            return int.from_bytes(memory.read(address, 8), "little")
        case Derived(operation, (one, other)) if operation in _OPERATIONS:
            numbers = (evaluate(each, registers, gs_base, memory) for each in (one, other))
            return _OPERATIONS[operation](*numbers) & MASK_64
    raise UnavailableError(f"the code does not tell what `{value}` is")


def _find_address(cell: Cell, registers: Mapping[str, int], gs_base: int | None, memory: ReadableMemory) -> int:
    base = 0 if cell.base is None else evaluate(cell.base, registers, gs_base, memory)
    if cell.space == "gs":
        if gs_base is None:
            raise UnavailableError("the kernel's GS base is not known")
        base += gs_base
    elif cell.space != "memory":
        raise UnavailableError(f"the code does not tell where `{cell}` is")
    return (base + cell.offset) & MASK_64
