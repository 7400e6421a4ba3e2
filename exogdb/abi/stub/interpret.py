"""The effect of one instruction on a `MachineState`.

Exact for what entry stubs are made of: moves, pushes, pops, address arithmetic, `swapgs`, masks and extensions.
Everything else is safe rather than exact: each register that it writes, by capstone's account, becomes `Unknown`.
Stores through an address that is not known are taken not to hit the kernel stack, and addresses that start from
different values not to be the same.
"""

from collections.abc import Callable
from typing import TypeGuard

from exogdb.abi.stub.disassembly import (
    GENERAL_REGISTERS,
    ImmediateOperand,
    Instruction,
    MemoryOperand,
    Operand,
    RegisterOperand,
)
from exogdb.abi.stub.symbolic import (
    WORD,
    Cell,
    Constant,
    Derived,
    Flag,
    Gs,
    GsBase,
    Loaded,
    MachineState,
    Returned,
    Sum,
    Unknown,
    UserValue,
    Value,
    add,
    split,
)
from exogdb.x86.word import MASK_64, to_signed

__all__ = [
    "CALLER_SAVED",
    "apply_call",
    "apply_instruction",
    "find_cell",
    "make_syscall_state",
    "read_operand",
]

CALLER_SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")
COMPARISONS = frozenset({"cmp", "test", "bt"})
NO_EFFECT = frozenset({"nop", "endbr64", "lfence", "verw"})
FLAG_CHANGES = {
    "cli": ("IF", Flag.CLEAR),
    "sti": ("IF", Flag.SET),
    "cld": ("DF", Flag.CLEAR),
    "std": ("DF", Flag.SET),
    "clac": ("AC", Flag.CLEAR),
    "stac": ("AC", Flag.SET),
}
FLAG_BITS = {"IF": 9, "DF": 10, "NT": 14, "AC": 18}
GS_BASE_MSR = 0xC0000101
_LONGEST_STORE = 1 << 16  # bytes; a `rep` of a count that is not known
_STATE_AREA = 512  # bytes; FXSAVE's area, and the part of XSAVE's that is always there
SHIFTS_AND_MASKS = frozenset({"and", "or", "shl", "shr", "sar", "sal", "xor", "add", "sub", "bts", "btr"})
STAYS_SHORT = frozenset({"and", "or", "xor", "shr", "sar", "btr"})
RESULT_SETS_FLAGS = SHIFTS_AND_MASKS - {"bts", "btr"} | {"inc", "dec"}  # those two set CF alone, from one bit


def make_syscall_state() -> MachineState:
    """The machine right after SYSCALL (Intel SDM): the user's registers, but rcx = rip, r11 = rflags."""
    registers: dict[str, Value] = {name: UserValue(name) for name in GENERAL_REGISTERS}
    registers |= {"rcx": UserValue("rip"), "r11": UserValue("rflags"), "cr3": UserValue("cr3")}
    return MachineState(registers)


def find_cell(operand: MemoryOperand, instruction: Instruction, state: MachineState) -> Cell | None:
    """The memory that `operand` names, or None when its address depends on an index that is not known."""
    base: Value | None = None
    offset = operand.displacement
    if operand.index is not None:
        index = state.registers.get(operand.index)
        if not isinstance(index, Constant):
            return None
        offset += index.value * operand.scale
    if operand.base == "rip":
        offset += instruction.next
    elif operand.base is not None:
        base, start = split(state.registers[operand.base])
        offset += start
        if isinstance(base, Constant):
            offset, base = offset + base.value, None
    if operand.segment == "gs":
        return Cell(_GS_SPACES[state.gs], base, to_signed(offset))
    if isinstance(base, GsBase):
        return Cell(_GS_SPACES[base.owner], None, to_signed(offset))
    return Cell("memory", base, to_signed(offset) if base is not None else offset & MASK_64)


_GS_SPACES = {Gs.KERNEL: "gs", Gs.USER: "user gs", Gs.UNKNOWN: "unknown gs"}


def read_operand(operand: Operand, instruction: Instruction, state: MachineState) -> Value:
    """The operand's value, zero-extended; `Derived` when it is narrower than eight bytes."""
    match operand:
        case ImmediateOperand(value):
            return Constant(value & MASK_64)
        case RegisterOperand(name, size, high):
            full = state.registers.get(name)
            if full is None or high:
                return Unknown(instruction.address, name)
            return _narrow(full, size)
        case MemoryOperand():
            cell = find_cell(operand, instruction, state)
            if cell is None:
                return Unknown(instruction.address, "memory")
            return _narrow(state.load(cell), operand.size)


def _narrow(value: Value, size: int) -> Value:
    if size >= 8 or (isinstance(value, Derived) and value.operation == f"low{8 * size}"):
        return value
    if isinstance(value, Constant):
        return Constant(value.value & ((1 << 8 * size) - 1))
    return Derived(f"low{8 * size}", (value,))


def _write(operand: Operand, value: Value, instruction: Instruction, state: MachineState) -> None:
    if isinstance(operand, RegisterOperand):
        if operand.name in state.registers:
            whole = operand.size >= 4  # 32-bit writes clear the upper half
            state.registers[operand.name] = value if whole else Unknown(instruction.address, operand.name)
        elif operand.name == "gs":
            state.gs = Gs.UNKNOWN  # the base comes from the descriptor
    elif isinstance(operand, MemoryOperand):
        cell = find_cell(operand, instruction, state)
        if cell is not None:
            state.store(cell, value, operand.size, instruction.address)


def _push(value: Value, instruction: Instruction, state: MachineState) -> None:
    state.registers["rsp"] = add(state.registers["rsp"], -WORD)
    base, offset = split(state.registers["rsp"])
    state.store(Cell("memory", base, offset), value, WORD, instruction.address)


def _pop(state: MachineState) -> Value:
    base, offset = split(state.registers["rsp"])
    value = state.load(Cell("memory", base, offset))
    state.registers["rsp"] = add(state.registers["rsp"], 8)
    return value


def _apply_move(instruction: Instruction, state: MachineState) -> None:
    target, source = instruction.operands
    _write(target, read_operand(source, instruction, state), instruction, state)


def _apply_sign_extension(instruction: Instruction, state: MachineState) -> None:
    target, source = instruction.operands
    value = read_operand(source, instruction, state)
    inner = value.operands[0] if isinstance(value, Derived) and value.operation.startswith("low") else value
    size = source.size if isinstance(source, RegisterOperand | MemoryOperand) else 8
    _write(target, Derived(f"signed{8 * size}", (inner,)), instruction, state)


def _apply_wide_sign_extension(_instruction: Instruction, state: MachineState) -> None:
    """CDQE: eax to rax."""
    value = _narrow(state.registers["rax"], 4)
    inner = value.operands[0] if isinstance(value, Derived) else value
    state.registers["rax"] = Derived("signed32", (inner,))


def _apply_push(instruction: Instruction, state: MachineState) -> None:
    _push(read_operand(instruction.operands[0], instruction, state), instruction, state)


def _apply_pop(instruction: Instruction, state: MachineState) -> None:
    value = _pop(state)
    _write(instruction.operands[0], value, instruction, state)


def _apply_push_flags(instruction: Instruction, state: MachineState) -> None:
    _push(Unknown(instruction.address, "rflags"), instruction, state)


def _apply_pop_flags(instruction: Instruction, state: MachineState) -> None:
    match _pop(state):
        case Constant(flags):
            state.flags |= {name: Flag.SET if flags >> bit & 1 else Flag.CLEAR for name, bit in FLAG_BITS.items()}
        case Unknown(_, "rflags"):
            pass  # what PUSHF kept a moment ago
        case _:
            state.flags |= dict.fromkeys(FLAG_BITS, Flag.UNKNOWN)


def _apply_flag_change(instruction: Instruction, state: MachineState) -> None:
    name, value = FLAG_CHANGES[instruction.mnemonic]
    state.flags[name] = value


def _apply_exchange(instruction: Instruction, state: MachineState) -> None:
    first, second = instruction.operands
    one, other = (read_operand(operand, instruction, state) for operand in (first, second))
    memory_first = isinstance(first, MemoryOperand)
    order = ((first, other), (second, one)) if memory_first else ((second, one), (first, other))
    for operand, value in order:
        _write(operand, value, instruction, state)


def _apply_lea(instruction: Instruction, state: MachineState) -> None:
    target, source = instruction.operands
    assert isinstance(source, MemoryOperand)
    cell = find_cell(source, instruction, state)
    value: Value = Unknown(instruction.address, "address")
    if cell is not None:
        value = Constant(cell.offset & MASK_64) if cell.base is None else add(cell.base, cell.offset)
    _write(target, _fit(value, target), instruction, state)


def _apply_arithmetic(instruction: Instruction, state: MachineState) -> None:
    target = instruction.operands[0]
    one = read_operand(target, instruction, state)
    other = read_operand(instruction.operands[-1], instruction, state)
    if isinstance(other, Constant) and instruction.mnemonic not in ("add", "sub"):
        other = _fit(other, target)
    _write(target, _fit(_combine(instruction.mnemonic, one, other, instruction), target), instruction, state)


def _fit(result: Value, target: Operand) -> Value:
    """What a 32-bit operation leaves of `result`. Masks of what is short already stay as short as they are."""
    size = target.size if isinstance(target, RegisterOperand) else WORD
    is_short = isinstance(result, Derived) and result.operation in STAYS_SHORT
    return result if is_short or isinstance(result, Unknown) else _narrow(result, size)


def _combine(operation: str, one: Value, other: Value, instruction: Instruction) -> Value:
    if operation in ("xor", "sub") and one == other:
        return Constant(0)
    if isinstance(other, Constant) and operation in ("add", "sub"):
        return add(one, to_signed(other.value) if operation == "add" else -to_signed(other.value))
    is_pointer = isinstance(one, Sum | Loaded) or one == UserValue("rsp")
    if operation == "and" and is_pointer and _is_alignment(other):
        base, offset = split(one)
        return Sum(base, to_signed(offset & other.value), exact=False)
    if isinstance(one, Unknown) or isinstance(other, Unknown) or _depth(one) > 4 or _depth(other) > 4:
        return Unknown(instruction.address)
    return Derived(operation, (one, other))


def _is_alignment(value: Value) -> TypeGuard[Constant]:
    mask = to_signed(value.value) if isinstance(value, Constant) else 0
    return mask in (-8, -16, -32, -64)


def _depth(value: Value) -> int:
    return 1 + max(map(_depth, value.operands)) if isinstance(value, Derived) else 0


def _apply_step(instruction: Instruction, state: MachineState) -> None:
    target = instruction.operands[0]
    step = 1 if instruction.mnemonic == "inc" else -1
    _write(target, _fit(add(read_operand(target, instruction, state), step), target), instruction, state)


def _apply_compare(instruction: Instruction, state: MachineState) -> None:
    one, other = (read_operand(operand, instruction, state) for operand in instruction.operands[:2])
    state.compared = (one, other)


def _apply_leave(instruction: Instruction, state: MachineState) -> None:
    state.registers["rsp"] = state.registers["rbp"]
    state.registers["rbp"] = _pop(state)


def _apply_swapgs(instruction: Instruction, state: MachineState) -> None:
    state.gs = state.gs.swapped()


def _apply_read_gs_base(instruction: Instruction, state: MachineState) -> None:
    whole = isinstance(instruction.operands[0], RegisterOperand) and instruction.operands[0].size == WORD
    known = whole and state.gs is not Gs.UNKNOWN
    _write(
        instruction.operands[0],
        GsBase(state.gs) if known else Unknown(instruction.address),
        instruction,
        state,
    )


def _apply_write_gs_base(_instruction: Instruction, state: MachineState) -> None:
    state.gs = Gs.UNKNOWN


def _apply_write_msr(_instruction: Instruction, state: MachineState) -> None:
    """WRMSR. Of IA32_KERNEL_GS_BASE it changes the user's base, not whose base is active."""
    number = state.registers["rcx"]
    if not isinstance(number, Constant) or number.value == GS_BASE_MSR:
        state.gs = Gs.UNKNOWN


def _apply_string_store(instruction: Instruction, state: MachineState) -> None:
    """STOS and MOVS, upwards (the ABI promises DF = 0): what they write is not followed."""
    if "rdi" not in instruction.writes:  # MOVSD of SSE has the same name
        _apply_other(instruction, state)
        return
    repeated = instruction.text.startswith("rep")
    count = state.registers["rcx"] if repeated else Constant(1)
    width = max(getattr(operand, "size", 0) for operand in instruction.operands)
    size = width * count.value if isinstance(count, Constant) else _LONGEST_STORE
    _forget(MemoryOperand(None, "rdi", None, 1, 0, WORD), size, instruction, state)
    _forget_written(instruction, state)


def _apply_compare_exchange(instruction: Instruction, state: MachineState) -> None:
    _apply_other(instruction, state)
    state.registers["rax"] = Unknown(instruction.address, "rax")


def _apply_other(instruction: Instruction, state: MachineState) -> None:
    """What the instruction may have written is not known any more."""
    _forget_written(instruction, state)
    target = instruction.operands[0] if instruction.operands else None
    if isinstance(target, MemoryOperand) and not instruction.is_conditional:
        is_area = instruction.mnemonic.startswith(("fxsave", "xsave", "fnsave"))
        _forget(target, _STATE_AREA if is_area else max(target.size, 1), instruction, state)


def _forget_written(instruction: Instruction, state: MachineState) -> None:
    for name in instruction.writes & state.registers.keys():
        state.registers[name] = Unknown(instruction.address, name)


def _forget(target: MemoryOperand, size: int, instruction: Instruction, state: MachineState) -> None:
    cell = find_cell(target, instruction, state)
    if cell is not None:
        state.store(cell, Unknown(instruction.address, str(cell)), size, instruction.address)


def _apply_return_address_pop(instruction: Instruction, state: MachineState) -> None:
    _pop(state)
    if instruction.operands:  # `ret 16`: the callee removes its arguments
        state.registers["rsp"] = add(state.registers["rsp"], _immediate(instruction.operands[0]))


def _immediate(operand: Operand) -> int:
    return operand.value if isinstance(operand, ImmediateOperand) else 0


def _apply_nothing(instruction: Instruction, state: MachineState) -> None:
    """Changes nothing that the path depends on."""


EFFECTS: dict[str, Callable[[Instruction, MachineState], None]] = {
    **dict.fromkeys(NO_EFFECT, _apply_nothing),
    **dict.fromkeys(FLAG_CHANGES, _apply_flag_change),
    **dict.fromkeys(SHIFTS_AND_MASKS, _apply_arithmetic),
    **dict.fromkeys(COMPARISONS, _apply_compare),
    **dict.fromkeys(("mov", "movabs"), _apply_move),
    **dict.fromkeys(("movsxd", "movsx"), _apply_sign_extension),
    **dict.fromkeys(("inc", "dec"), _apply_step),
    "movzx": _apply_move,
    "push": _apply_push,
    "pop": _apply_pop,
    "pushfq": _apply_push_flags,
    "popfq": _apply_pop_flags,
    "xchg": _apply_exchange,
    "lea": _apply_lea,
    "leave": _apply_leave,
    "cdqe": _apply_wide_sign_extension,
    "swapgs": _apply_swapgs,
    "cmpxchg": _apply_compare_exchange,
    "rdgsbase": _apply_read_gs_base,
    "wrgsbase": _apply_write_gs_base,
    "wrmsr": _apply_write_msr,
    **{f"{name}{width}": _apply_string_store for name in ("stos", "movs") for width in "bwdq"},
    "ret": _apply_return_address_pop,
}


def apply_instruction(instruction: Instruction, state: MachineState) -> None:
    """Change `state` in place to what it is behind `instruction`, which must not be a call."""
    EFFECTS.get(instruction.mnemonic, _apply_other)(instruction, state)
    _note_result(instruction, state)


def _note_result(instruction: Instruction, state: MachineState) -> None:
    """What the next conditional branch depends on, unless a comparison has said so: arithmetic sets flags, too."""
    if "rflags" not in instruction.writes or instruction.mnemonic in {*COMPARISONS, *NO_EFFECT, *FLAG_CHANGES}:
        return
    state.compared = None
    if instruction.mnemonic in RESULT_SETS_FLAGS:
        state.compared = (read_operand(instruction.operands[0], instruction, state), Constant(0))


def apply_call(call: Instruction, state: MachineState) -> None:
    """Change `state` to what a function that follows the System V ABI leaves when it returns from `call`."""
    state.compared = None
    for name in CALLER_SAVED:
        state.registers[name] = Returned(name, call.address)
