"""What a function's first and last instructions say about where its parameters are."""

from dataclasses import dataclass
from functools import lru_cache

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
    back; branches through tables are taken not to. Reads no more than 16 KiB, in one piece.
    """
    if pc == function.start:
        return frozenset(GENERAL_REGISTERS)
    if pc not in function or len(function) > _LONGEST_FUNCTION:
        return frozenset()
    try:
        instructions = _disassemble(function.start, memory.read(function.start, len(function)))
    except (AnalysisError, MemoryFault):
        return frozenset()
    before = [each for each in instructions if each.address < pc]
    if before[-1].next != pc or any(_leaves_line(each) for each in before):
        return frozenset()
    if any(_goes_back(each, function.start, pc) for each in instructions[len(before) :]):
        return frozenset()
    return frozenset(GENERAL_REGISTERS).difference(*(each.writes for each in before))


@lru_cache(maxsize=32)
def _disassemble(start: int, code: bytes) -> tuple[Instruction, ...]:
    """All instructions of a function. A frame asks for many parameters at many places of the same one.

    :raise AnalysisError: some of it is no instruction.
    """
    disassembler = Disassembler(_Code(start, code))
    instructions, at = [], start
    while at < start + len(code):
        instructions.append(disassembler.at(at))
        at = instructions[-1].next
    return tuple(instructions)


@dataclass(frozen=True)
class _Code:
    """`code` at `start`; what is around it is of no instruction that begins in it."""

    start: int
    code: bytes

    def read(self, address: int, size: int) -> bytes:
        """As `exogdb.x86.memory.ReadableMemory`, with as many zeros as are wanted on both sides."""
        offset = address - self.start
        before = bytes(min(max(-offset, 0), size))
        return (before + self.code[max(offset, 0) : max(offset + size, 0)]).ljust(size, b"\0")


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


def _goes_back(instruction: Instruction, start: int, pc: int) -> bool:
    """Whether it is a branch to what lies from `start` up to and with `pc`."""
    return instruction.mnemonic != "call" and instruction.target in range(start, pc + 1)
