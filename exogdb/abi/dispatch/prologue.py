"""What a function's first and last instructions say about where its parameters are."""

from exogdb.abi.stub.disassembly import (
    GENERAL_REGISTERS,
    Disassembler,
    Instruction,
    MemoryOperand,
    RegisterOperand,
)
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["find_unchanged", "is_near_end", "keeps_parameters_in_memory"]

# System V ABI for x86-64, 3.2.3: where integer parameters are at a function's first instruction.
_PARAMETERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_FRAME_BASES = ("rsp", "rbp")
_LONGEST_PROLOGUE = 256  # bytes
_LONGEST_FUNCTION = 1 << 14  # bytes
_LEADS_ELSEWHERE = frozenset({"call", "jmp", "ret", "retf", "syscall", "sysretq", "iretq", "hlt", "ud2", "int3"})


def keeps_parameters_in_memory(memory: ReadableMemory, prologue: range, count: int) -> bool:
    """Whether the code in `prologue` stores each of a function's `count` parameters in its stack frame.

    As code does that was not optimised; what was may store one or the other. Looks no further than 256 bytes,
    nor than code that cannot be read or decoded.
    """
    disassembler = Disassembler(memory)
    wanted = set(_PARAMETERS[:count])
    at = prologue.start
    while wanted and at < min(prologue.stop, prologue.start + _LONGEST_PROLOGUE):
        try:
            instruction = disassembler.at(at)
        except (AnalysisError, MemoryFault):
            return False
        wanted.discard(_find_stored(instruction))
        at = instruction.next
    return count > 0 and not wanted


def _find_stored(instruction: Instruction) -> str:
    """The register that goes into the stack frame; empty if none does."""
    match instruction.mnemonic, instruction.operands:
        case "mov", (MemoryOperand(base=base, index=None), RegisterOperand(name)) if base in _FRAME_BASES:
            return name
        case _:
            return ""


def find_unchanged(memory: ReadableMemory, function: range, pc: int) -> frozenset[str]:
    """The registers that hold at `pc`, in code at `function`, what they held at its first instruction.

    Empty unless straight-line code alone leads there: no branch or call on the way, and none behind it that goes
    back. Looks at no more than 16 KiB.
    """
    disassembler = Disassembler(memory)
    unchanged = set(GENERAL_REGISTERS)
    at = function.start
    try:
        while at < pc:
            instruction = disassembler.at(at)
            if _leaves_line(instruction):
                return frozenset()
            unchanged -= instruction.writes
            at = instruction.next
        if at != pc or (pc > function.start and _is_reached_again(disassembler, function, pc)):
            return frozenset()
    except (AnalysisError, MemoryFault):
        return frozenset()
    return frozenset(unchanged)


def is_near_end(memory: ReadableMemory, pc: int, limit: int = 32) -> bool:
    """Whether straight-line code leads from `pc` out of its function, so that this may be its epilogue.

    True as well where the code cannot be read. Looks at no more than `limit` instructions.
    """
    disassembler = Disassembler(memory)
    at = pc
    try:
        for _ in range(limit):
            instruction = disassembler.at(at)
            if instruction.mnemonic in ("ret", "jmp"):
                return True
            if _leaves_line(instruction):
                return False
            at = instruction.next
    except (AnalysisError, MemoryFault):
        return True
    return False


def _leaves_line(instruction: Instruction) -> bool:
    return instruction.is_conditional or instruction.mnemonic in _LEADS_ELSEWHERE


def _is_reached_again(disassembler: Disassembler, function: range, pc: int) -> bool:
    """Whether a branch in `function` goes back to what lies before or at `pc`. Tables are taken not to."""
    if len(function) > _LONGEST_FUNCTION:
        return True
    at = pc
    while at < function.stop:
        instruction = disassembler.at(at)
        if instruction.mnemonic != "call" and instruction.target in range(function.start, pc + 1):
            return True
        at = instruction.next
    return False
