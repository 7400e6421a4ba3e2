"""Follow machine code along every branch, keeping what is certain about registers and memory at each instruction.

A data-flow walk: where two paths meet, only what both agree on is kept, so that the walk ends on loops too and
yields one state per instruction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from exogdb.abi.disassembly import Disassembler, Instruction, MemoryOperand
from exogdb.abi.interpret import apply_call, apply_instruction, find_cell, read_operand
from exogdb.abi.symbolic import Cell, Constant, MachineState, add, join_states, split
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["RETURNS_TO_USER", "Call", "Walk", "follow"]

RETURNS_TO_USER = {"sysretq": "sysret", "sysret": "sysret", "iretq": "iret", "iretd": "iret", "sysexit": "sysexit"}
ENDS = frozenset({"hlt", "ud2", "int3", *RETURNS_TO_USER})
MOST_INSTRUCTIONS = 4000  # an entry stub has a few hundred; more means that the walk went astray


@dataclass(frozen=True)
class Call:
    """A call met on the way. `target` is None when it goes through memory or a register that is not known."""

    instruction: Instruction
    target: int | None
    is_leaf: bool


@dataclass
class Walk:
    """What the walk found: a state before each instruction, the calls, the returns to user space, and doubts."""

    instructions: dict[int, Instruction] = field(default_factory=dict)
    states: dict[int, MachineState] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)


def follow(
    start: int,
    state: MachineState,
    memory: ReadableMemory,
    disassembler: Disassembler,
    stop: Callable[[Call], bool] = lambda call: False,
) -> Walk:
    """Walk from `start` (virtual address) in `state` to every return to user space.

    Paths end where `stop` says so of a call, too. Nothing is raised for code that cannot be followed: the path
    ends there, with a sentence in `doubts`.
    """
    walk = Walk()
    waiting = [(start, state)]
    while waiting:
        address, arriving = waiting.pop()
        known = walk.states.get(address)
        joined = arriving.copy() if known is None else join_states(known, arriving, address)
        if joined == known:
            continue
        walk.states[address] = joined
        if len(walk.states) > MOST_INSTRUCTIONS:
            walk.doubts[address] = f"gave up after {MOST_INSTRUCTIONS} instructions, at {address:#x}"
            break
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError) as error:
            walk.doubts[address] = f"the code at {address:#x} could not be followed: {error}"
            del walk.states[address]
            continue
        walk.instructions[address] = instruction
        waiting += _advance(instruction, joined.copy(), walk, memory, disassembler, stop)
    return walk


def _advance(
    instruction: Instruction,
    state: MachineState,
    walk: Walk,
    memory: ReadableMemory,
    disassembler: Disassembler,
    stop: Callable[[Call], bool],
) -> list[tuple[int, MachineState]]:
    """Where execution goes from `instruction`, and in which states."""
    if instruction.mnemonic in ENDS:
        return []
    if instruction.mnemonic == "call":
        return _advance_call(instruction, state, walk, memory, disassembler, stop)
    if instruction.mnemonic == "jmp":
        target = _find_target(instruction, state, memory)
        if target is None:
            walk.doubts[instruction.address] = (
                f"`{instruction.text}` at {instruction.address:#x} jumps to an address that the code does not tell"
            )
            return []
        return [(target, state)]
    if instruction.mnemonic in ("ret", "retf"):
        return _advance_return(instruction, state, walk)
    apply_instruction(instruction, state)
    if instruction.is_conditional and instruction.target is not None:
        return [(instruction.target, state.copy()), (instruction.next, state)]  # the last one is followed first
    return [(instruction.next, state)]


def _advance_return(instruction: Instruction, state: MachineState, walk: Walk) -> list[tuple[int, MachineState]]:
    before = state.copy()
    apply_instruction(instruction, state)
    target = before.load(_stack_cell(before))
    if isinstance(target, Constant):
        return [(target.value, state)]
    walk.doubts[instruction.address] = (
        f"`ret` at {instruction.address:#x} returns to an address that the code does not tell"
    )
    return []


def _advance_call(
    instruction: Instruction,
    state: MachineState,
    walk: Walk,
    memory: ReadableMemory,
    disassembler: Disassembler,
    stop: Callable[[Call], bool],
) -> list[tuple[int, MachineState]]:
    target = _find_target(instruction, state, memory)
    if target is not None and instruction.next <= target <= instruction.next + 16:
        state.registers["rsp"] = add(state.registers["rsp"], -8)
        state.memory[_stack_cell(state)] = Constant(instruction.next)  # stuffing the return predictor, not a call
        return [(target, state)]
    changed = None if target is None else _find_leaf_changes(target, disassembler)
    call = Call(instruction, target, changed is not None)
    walk.calls[instruction.address] = call
    if stop(call):
        return []
    if changed is None:
        apply_call(instruction, state)
    else:
        after = state.copy()
        apply_call(instruction, after)
        for name in changed & after.registers.keys():
            state.registers[name] = after.registers[name]
    return [(instruction.next, state)]


def _find_target(instruction: Instruction, state: MachineState, memory: ReadableMemory) -> int | None:
    """The branch's target: direct, in a register whose value is known, or in memory that can be read."""
    if instruction.target is not None:
        return instruction.target
    operand = instruction.operands[0]
    value = read_operand(operand, instruction, state)
    if isinstance(value, Constant):
        return value.value
    if not isinstance(operand, MemoryOperand) or operand.segment is not None:
        return None
    cell = find_cell(operand, instruction, state)
    if cell is None or cell.base is not None or cell in state.memory:
        return None
    try:
        return int.from_bytes(memory.read(cell.offset, 8), "little")
    except MemoryFault:
        return None


def _find_leaf_changes(start: int, disassembler: Disassembler, limit: int = 48) -> frozenset[str] | None:
    """The registers that a straight-line function without stack use changes; None for any other function.

    Kernels call such functions on the way for the sake of the CPU's predictors, with the arguments already set.
    """
    changed: set[str] = set()
    address = start
    for _ in range(limit):
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return None
        if instruction.mnemonic == "ret":
            return None if changed & {"rdi", "rsi", "rax", "rsp"} else frozenset(changed)
        if instruction.mnemonic == "call" or instruction.is_conditional or instruction.mnemonic in ENDS:
            return None
        if instruction.mnemonic == "jmp" and instruction.target is None:
            return None
        changed |= instruction.writes
        address = instruction.target or instruction.next
    return None


def _stack_cell(state: MachineState) -> Cell:
    base, offset = split(state.registers["rsp"])
    return Cell("memory", base, offset)
