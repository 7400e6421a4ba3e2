"""Follow machine code along every branch, keeping what is certain about registers and memory at each instruction.

A data-flow walk: where two paths meet, only what both agree on is kept, so that the walk ends on loops too and
yields one state per instruction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from exogdb.abi.stub.disassembly import (
    GENERAL_REGISTERS,
    Disassembler,
    Instruction,
    MemoryOperand,
    RegisterOperand,
)
from exogdb.abi.stub.interpret import apply_call, apply_instruction, find_cell, read_operand
from exogdb.abi.stub.symbolic import WORD, Cell, Constant, MachineState, add, join_states, split
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["RETURNS_TO_USER", "Call", "Walk", "follow", "make_state_at_call"]

RETURNS_TO_USER = {"sysretq": "sysret", "sysret": "sysret", "iretq": "iret", "iretd": "iret", "sysexit": "sysexit"}
ENDS = frozenset({"hlt", "ud2", "int3", *RETURNS_TO_USER})
_TOP_OF_STACK = MemoryOperand(None, "rsp", None, 1, 0, WORD)
_LONGEST_TRAP = 32  # bytes
_NEAR = 1 << 31  # bytes; what a direct call reaches, so that a kernel's code does not lie farther apart
MOST_INSTRUCTIONS = 4000  # an entry stub has a few hundred; more means that the walk went astray


@dataclass(frozen=True)
class Call:
    """A call met on the way. `target` is None when it goes through memory or a register that is not known.

    A stub can push `returns_to` itself and jump to the function, or push that as well and execute RET: `pushed`
    bytes (0, 8 or 16) are then on the stack in front of `instruction` that are gone when the function returns.
    """

    instruction: Instruction
    target: int | None
    is_leaf: bool
    returns_to: int
    pushed: int = 0

    @property
    def written_target(self) -> str:
        """The operand of the call as the code has it: an address, a register, memory; empty for RET."""
        return self.instruction.text.partition(" ")[2].strip()


@dataclass
class Walk:
    """What the walk found: a state before each instruction, what follows it, the calls, and doubts."""

    instructions: dict[int, Instruction] = field(default_factory=dict)
    states: dict[int, MachineState] = field(default_factory=dict)
    edges: dict[int, list[int]] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scene:
    """What a walk goes through, and at which calls it ends."""

    memory: ReadableMemory
    disassembler: Disassembler
    stop: Callable[[Call], bool]


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
    walk, scene = Walk(), _Scene(memory, disassembler, stop)
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
        following = _advance(instruction, joined.copy(), walk, scene)
        known_edges = walk.edges.get(address, ())
        walk.edges[address] = [*dict.fromkeys((*known_edges, *(place for place, _ in following)))]
        waiting += following
    return walk


def _advance(
    instruction: Instruction, state: MachineState, walk: Walk, scene: _Scene
) -> list[tuple[int, MachineState]]:
    """Where execution goes from `instruction`, and in which states."""
    if instruction.mnemonic in ENDS:
        return []
    if instruction.mnemonic == "call":
        return _advance_call(instruction, state, walk, scene)
    if instruction.mnemonic == "jmp":
        target = _find_target(instruction, state, scene.memory)
        returns_to = _find_pushed_return(instruction, state, target, scene)
        if returns_to is not None:
            return _advance_into(instruction, target, returns_to, WORD, state, walk, scene)
        if target is None:
            walk.doubts[instruction.address] = (
                f"`{instruction.text}` at {instruction.address:#x} jumps to an address that the code does not tell"
            )
            return []
        return [(target, state)]
    if instruction.mnemonic in ("ret", "retf"):
        return _advance_return(instruction, state, walk, scene)
    apply_instruction(instruction, state)
    if instruction.is_conditional and instruction.target is not None:
        return [(instruction.target, state.copy()), (instruction.next, state)]  # the last one is followed first
    return [(instruction.next, state)]


def _advance_return(
    instruction: Instruction, state: MachineState, walk: Walk, scene: _Scene
) -> list[tuple[int, MachineState]]:
    before = state.copy()
    apply_instruction(instruction, state)
    target = before.load(_stack_cell(before))
    if isinstance(target, Constant):
        returns_to = _find_pushed_return(instruction, state, target.value, scene)
        if returns_to is not None:
            return _advance_into(instruction, target.value, returns_to, 2 * WORD, before, walk, scene)
        return [(target.value, state)]
    walk.doubts[instruction.address] = (
        f"`ret` at {instruction.address:#x} returns to an address that the code does not tell"
    )
    return []


def _advance_call(
    instruction: Instruction, state: MachineState, walk: Walk, scene: _Scene
) -> list[tuple[int, MachineState]]:
    target = _find_target(instruction, state, scene.memory)
    if target is not None and _is_trap(instruction.next, target, scene.disassembler):
        state.registers["rsp"] = add(state.registers["rsp"], -WORD)
        cell = _stack_cell(state)
        state.store(cell, Constant(instruction.next), WORD, instruction.address)
        return [(target, state)]
    return _advance_into(instruction, target, instruction.next, 0, state, walk, scene)


def _advance_into(
    instruction: Instruction,
    target: int | None,
    returns_to: int,
    pushed: int,
    state: MachineState,
    walk: Walk,
    scene: _Scene,
) -> list[tuple[int, MachineState]]:
    """Over a function that is called by `instruction`, to where it returns; see `Call` for the rest."""
    thunk = _find_thunk_register(target, scene.disassembler) if target is not None else None
    if thunk is not None:
        value = state.registers[thunk]
        target = value.value if isinstance(value, Constant) else None
    code = None if target is None else _find_leaf_code(target, scene.disassembler)
    call = Call(instruction, target, code is not None, returns_to, pushed)
    walk.calls[instruction.address] = call
    if scene.stop(call):
        return []
    after = make_state_at_call(call, state)
    if code is None:
        apply_call(instruction, after)
    else:
        _apply_leaf(code, after)
    return [(returns_to, after)]


def _apply_leaf(code: list[Instruction], state: MachineState) -> None:
    state.registers["rsp"] = add(state.registers["rsp"], -WORD)  # the return address
    for instruction in code:
        apply_instruction(instruction, state)
    state.registers["rsp"] = add(state.registers["rsp"], WORD)


def make_state_at_call(call: Call, state: MachineState) -> MachineState:
    """`state`, which is in front of the call's instruction, as a CALL in its place would find it."""
    before = state.copy()
    before.registers["rsp"] = add(before.registers["rsp"], call.pushed)
    return before


def _find_pushed_return(
    instruction: Instruction, state: MachineState, target: int | None, scene: _Scene
) -> int | None:
    """The address on top of the stack in `state`, if a function that `instruction` goes to would return there.

    Any other constant is none, such as a selector, nor is what a retpoline pushed; and a jump from which the code
    goes straight on to another one is not yet the call.
    """
    top = state.load(_stack_cell(state))
    if not isinstance(top, Constant) or abs(top.value - instruction.address) >= _NEAR:
        return None
    if not _is_returned_to(top.value, scene.disassembler):
        return None
    is_thunk = target is not None and _find_thunk_register(target, scene.disassembler) is not None
    is_passed = target is not None and not is_thunk and _goes_straight_on(target, scene.disassembler)
    return None if is_passed else top.value


def _is_returned_to(address: int, disassembler: Disassembler) -> bool:
    """Whether there is code at `address`, and not what only speculation runs."""
    end = address + _LONGEST_TRAP
    try:
        at = address
        while (instruction := disassembler.at(at)).mnemonic in ("pause", "lfence", "nop") and at < end:
            at = instruction.next
    except (MemoryFault, AnalysisError):
        return False
    loops = instruction.mnemonic == "jmp" and instruction.target in range(address, at + 1)
    return not loops and instruction.mnemonic != "int3"


def _goes_straight_on(start: int, disassembler: Disassembler, limit: int = 16) -> bool:
    """Whether the code at `start` comes to another jump without a branch, and leaves the stack as it is."""
    address = start
    try:
        for _ in range(limit):
            instruction = disassembler.at(address)
            if instruction.mnemonic == "jmp":
                return instruction.target is not None
            if instruction.is_conditional or instruction.mnemonic in (*ENDS, "ret", "call"):
                return False
            if "rsp" in instruction.writes:
                return False
            address = instruction.next
    except (MemoryFault, AnalysisError):
        return False
    return False


def _is_trap(start: int, end: int, disassembler: Disassembler) -> bool:
    """Whether only speculation can run what lies from `start` to `end`: to call over it is no call.

    That is how retpolines are built (Intel, "Retpoline: A Branch Target Injection Mitigation").
    """
    if not start <= end <= start + _LONGEST_TRAP:
        return False
    address = start
    while address < end:
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return False
        stays = instruction.mnemonic == "jmp" and instruction.target in range(start, end)
        if not stays and instruction.mnemonic not in ("pause", "lfence", "nop", "int3"):
            return False
        address = instruction.next
    return True


def _find_thunk_register(start: int, disassembler: Disassembler) -> str | None:
    """The register whose value the function at `start` jumps to, if it does nothing else: compilers call through
    such thunks, which are retpolines or `jmp REGISTER`.
    """
    address = start
    try:
        while (instruction := disassembler.at(address)).mnemonic in ("endbr64", "lfence", "nop"):
            address = instruction.next
        if instruction.mnemonic == "jmp":
            return _register_or_none(instruction, 0)
        over = instruction.target if instruction.mnemonic == "call" else None
        if over is None or not _is_trap(instruction.next, over, disassembler):
            return None
        replaced = disassembler.at(over)
        leaves = disassembler.at(replaced.next).mnemonic == "ret" and replaced.mnemonic == "mov"
        return _register_or_none(replaced, 1) if leaves and replaced.operands[0] == _TOP_OF_STACK else None
    except (MemoryFault, AnalysisError):
        return None


def _register_or_none(instruction: Instruction, position: int) -> str | None:
    match instruction.operands[position]:
        case RegisterOperand(name, 8) if name in GENERAL_REGISTERS:
            return name
    return None


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


def _find_leaf_code(start: int, disassembler: Disassembler, limit: int = 48) -> list[Instruction] | None:
    """What a straight-line function without stack use does, less calls and returns; None for any other function.

    Kernels call such functions on the way for the sake of the CPU's predictors, with the arguments set. LFENCE
    gives them away: with it they may change rax, and call a place and drop its return address.
    """
    executed: list[Instruction] = []
    returns: list[int] = []
    results = {"rdi", "rsi", "rax", "rsp"}
    address = start
    for _ in range(limit):
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return None
        if instruction.mnemonic == "ret" and not returns:
            return None if any(each.writes & results for each in executed) else executed
        if not _is_straight(instruction) or (instruction.mnemonic == "call" and "rax" in results):
            return None
        if instruction.mnemonic == "lfence":
            results.discard("rax")
        address = _step_in_leaf(instruction, returns, executed)
    return None


def _is_straight(instruction: Instruction) -> bool:
    """Whether the code tells where this instruction leads: to one place, in the kernel."""
    if instruction.mnemonic in ("call", "jmp"):
        return instruction.target is not None
    return not instruction.is_conditional and instruction.mnemonic not in ENDS


def _step_in_leaf(instruction: Instruction, returns: list[int], executed: list[Instruction]) -> int:
    """Where execution goes; `returns` are the return addresses on the stack, `executed` what was done so far."""
    if instruction.mnemonic == "ret":
        return returns.pop()
    if instruction.mnemonic == "call":
        returns.append(instruction.next)
    elif returns and instruction.text == "lea rsp, [rsp + 8]":
        returns.pop()
    elif instruction.mnemonic != "jmp":
        executed.append(instruction)
    return instruction.target or instruction.next


def _stack_cell(state: MachineState) -> Cell:
    base, offset = split(state.registers["rsp"])
    return Cell("memory", base, offset)
