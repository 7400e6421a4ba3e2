"""What a function's first instructions say about where its parameters are."""

from exogdb.abi.stub.disassembly import Disassembler, Instruction, MemoryOperand, RegisterOperand
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["keeps_parameters_in_memory"]

# System V ABI for x86-64, 3.2.3: where integer parameters are at a function's first instruction.
_PARAMETERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_FRAME_BASES = ("rsp", "rbp")
_LONGEST_PROLOGUE = 256  # bytes


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
        at += len(instruction.code)
    return count > 0 and not wanted


def _find_stored(instruction: Instruction) -> str:
    """The register that goes into the stack frame; empty if none does."""
    match instruction.mnemonic, instruction.operands:
        case "mov", (MemoryOperand(base=base, index=None), RegisterOperand(name)) if base in _FRAME_BASES:
            return name
        case _:
            return ""
