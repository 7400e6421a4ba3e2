"""What happens on the way through a stub: `swapgs`, CR3, GS accesses, branches, use of the user's stack."""

from collections.abc import Collection, Iterator

from exogdb.abi.stub.disassembly import Instruction, MemoryOperand, RegisterOperand
from exogdb.abi.stub.entry_path import Comparison, Cr3Switch, GsAccess, SwapGs
from exogdb.abi.stub.follow import Walk
from exogdb.abi.stub.interpret import COMPARISONS, apply_instruction, find_cell, read_operand
from exogdb.abi.stub.symbolic import MachineState, UserValue, Value, split

__all__ = [
    "find_comparisons",
    "find_cr3_switches",
    "find_gs_accesses",
    "find_gs_changes",
    "find_swapgs",
    "find_user_stack_uses",
]

STACK_INSTRUCTIONS = frozenset({"push", "pop", "call", "ret", "pushfq", "popfq"})


def _for_each_step(before: Walk, after: Walk) -> Iterator[tuple[Instruction, MachineState, bool]]:
    """Every instruction with the state in front of it and whether it follows the dispatcher, by address."""
    for walk, on_exit in ((before, False), (after, True)):
        for address in sorted(walk.instructions):
            yield walk.instructions[address], walk.states[address], on_exit


def find_swapgs(before: Walk, after: Walk) -> tuple[SwapGs, ...]:
    """Every `swapgs`, in address order, the way in first."""
    return tuple(
        SwapGs(instruction.address, state.gs, on_exit)
        for instruction, state, on_exit in _for_each_step(before, after)
        if instruction.mnemonic == "swapgs"
    )


def find_cr3_switches(before: Walk, after: Walk) -> tuple[Cr3Switch, ...]:
    """Every write of CR3."""
    return tuple(
        Cr3Switch(instruction.address, read_operand(instruction.operands[1], instruction, state), on_exit)
        for instruction, state, on_exit in _for_each_step(before, after)
        if instruction.mnemonic == "mov" and _is_register(instruction, "cr3")
    )


def _is_register(instruction: Instruction, name: str) -> bool:
    target = instruction.operands[0]
    return isinstance(target, RegisterOperand) and target.name == name


def find_gs_accesses(before: Walk, after: Walk) -> tuple[GsAccess, ...]:
    """Every access relative to the GS base whose offset the code tells."""
    accesses = []
    for instruction, state, _ in _for_each_step(before, after):
        for position, operand in enumerate(instruction.operands):
            if not isinstance(operand, MemoryOperand) or operand.segment != "gs":
                continue
            cell = find_cell(operand, instruction, state)
            if cell is not None and cell.base is None:
                stores = position == 0 and instruction.mnemonic not in {*COMPARISONS, "push", "call", "jmp"}
                accesses.append(GsAccess(instruction.address, cell.offset, stores, state.gs))
    return tuple(accesses)


def find_gs_changes(before: Walk, after: Walk) -> tuple[int, ...]:
    """Instructions other than `swapgs` behind which the active GS base may be another one."""
    found = []
    for instruction, state, _ in _for_each_step(before, after):
        following = state.copy()
        if instruction.mnemonic not in ("swapgs", "call"):
            apply_instruction(instruction, following)
            if following.gs is not state.gs:
                found.append(instruction.address)
    return tuple(found)


def find_comparisons(before: Walk, after: Walk) -> tuple[Comparison, ...]:
    """Every conditional branch with the two values it depends on."""
    return tuple(
        Comparison(instruction.address, state.compared, instruction.target, on_exit)
        for instruction, state, on_exit in _for_each_step(before, after)
        if instruction.is_conditional and instruction.target is not None
    )


def find_user_stack_uses(before: Walk, after: Walk, saved: Collection[Value] = ()) -> tuple[int, ...]:
    """Instructions that read or write memory through the user's rsp while in the kernel.

    `saved` is what stands for the user's rsp behind the dispatcher's call: the slots that the stub keeps it in.
    """
    on_entry: tuple[Value, ...] = (UserValue("rsp"),)
    return tuple(
        instruction.address
        for instruction, state, on_exit in _for_each_step(before, after)
        if _touches_stack(instruction, state, (*on_entry, *saved) if on_exit else on_entry)
    )


def _touches_stack(instruction: Instruction, state: MachineState, stacks: Collection[Value]) -> bool:
    if instruction.mnemonic in STACK_INSTRUCTIONS and split(state.registers["rsp"])[0] in stacks:
        return True
    cells = (
        find_cell(operand, instruction, state)
        for operand in instruction.operands
        if isinstance(operand, MemoryOperand) and instruction.mnemonic not in ("lea", "nop")
    )
    return any(cell is not None and cell.base in stacks for cell in cells)
