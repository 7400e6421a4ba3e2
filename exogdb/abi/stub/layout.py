"""The frame that a stub saves: which stores and pushes make it up, and where it begins."""

from exogdb.abi.stub.disassembly import MemoryOperand
from exogdb.abi.stub.entry_path import FrameLayout, FrameSlot
from exogdb.abi.stub.exits import find_return_values
from exogdb.abi.stub.follow import Walk
from exogdb.abi.stub.interpret import apply_instruction
from exogdb.abi.stub.symbolic import Constant, Loaded, MachineState, Unknown, UserValue, Value, find_origin, split

__all__ = ["ARGUMENT_PASSING", "derive_layout"]

ARGUMENT_PASSING = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")  # System V ABI, x86-64, 3.2.3


def derive_layout(before: Walk, after: Walk, at_call: MachineState | None) -> FrameLayout:
    """The frame as it is when the dispatcher is called. No dispatcher, no frame: then it is empty.

    It begins where a pointer parameter of the dispatcher points, else at the lowest slot that an exit reads back.
    """
    if at_call is None:
        return FrameLayout((), 0, 0)
    top, depth = split(at_call.registers["rsp"])
    if isinstance(top, Unknown):
        return FrameLayout((), 0, 0)
    stored = {
        cell.offset: value
        for cell, value in at_call.memory.items()
        if cell.space == "memory" and cell.base == top and cell.offset >= depth
    }
    restored = _find_restored(after, top)
    base = _find_base(at_call, top, stored, restored)
    makers = _find_makers(before, top, stored)
    slots = [_make_slot(offset, stored[offset], base, restored, makers) for offset in sorted(stored)]
    inside = tuple(slot for slot in slots if slot.offset >= 0)
    size = inside[-1].offset + 8 if inside else 0
    return FrameLayout(inside, size, -base, tuple(slot for slot in slots if slot.offset < 0))


def _make_slot(
    offset: int,
    value: Value,
    base: int,
    restored: dict[int, tuple[str, ...]],
    makers: dict[int, tuple[int, str]],
) -> FrameSlot:
    origin = find_origin(value)
    address, how = makers.get(offset, (None, "mov"))
    return FrameSlot(
        offset=offset - base,
        holds=origin.register if isinstance(origin, UserValue) else None,
        value=str(value),
        how=how,
        stored_at=address,
        restored_to=restored.get(offset, ()),
        is_constant=isinstance(origin, Constant),
    )


def _find_restored(after: Walk, top: Value) -> dict[int, tuple[str, ...]]:
    """Slot offset from the stack's top -> the user registers that some exit loads from it."""
    restored: dict[int, list[str]] = {}
    for register, values in find_return_values(after).items():
        for value in values:
            if isinstance(value, Loaded) and value.cell.space == "memory" and value.cell.base == top:
                restored.setdefault(value.cell.offset, []).append(register)
    return {offset: tuple(names) for offset, names in restored.items()}


def _find_base(
    at_call: MachineState, top: Value, stored: dict[int, Value], restored: dict[int, tuple[str, ...]]
) -> int:
    for name in ARGUMENT_PASSING:
        base, offset = split(at_call.registers[name])
        if base == top and offset in stored:
            return offset
    candidates = [offset for offset in restored if offset in stored] or list(stored)
    return min(candidates, default=0)


def _find_makers(before: Walk, top: Value, stored: dict[int, Value]) -> dict[int, tuple[int, str]]:
    """Slot offset from the stack's top -> the instruction that fills it with what it has, and `push` or `mov`."""
    makers: dict[int, tuple[int, str]] = {}
    for address, instruction in before.instructions.items():
        if instruction.mnemonic not in ("push", "pushfq", "mov"):
            continue
        is_push = instruction.mnemonic.startswith("push")
        if not is_push and not isinstance(instruction.operands[0], MemoryOperand):
            continue
        state = before.states[address].copy()
        apply_instruction(instruction, state)
        written = {
            cell.offset
            for cell, value in state.memory.items()
            if (cell.space, cell.base) == ("memory", top)
            and value == stored.get(cell.offset)
            and before.states[address].memory.get(cell) != value
        }
        makers |= dict.fromkeys(written, (address, "push" if is_push else "mov"))
    return makers
