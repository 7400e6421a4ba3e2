"""Whether code tells by how much it moves the stack pointer.

Offsets from rsp that one run shows hold for the next one only if it does. Linux moves its stack by a random
amount inside its dispatcher in every call (`add_random_kstack_offset`, include/linux/randomize_kstack.h).

>>> class Code:
...     def read(self, address: int, size: int) -> bytes:
...         return bytes.fromhex("4883ec28" "4829c4").ljust(size + address, b"\\x90")[address : address + size]
>>> moves_stack_unknown(Code(), 0, 4), moves_stack_unknown(Code(), 0, 7)  # sub rsp, 0x28; sub rsp, rax
(False, True)
"""

from exogdb.abi.stub.disassembly import (
    Disassembler,
    ImmediateOperand,
    Instruction,
    MemoryOperand,
    RegisterOperand,
    capstone_engine,
)
from exogdb.interrupts import interrupts_held
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import to_signed

__all__ = ["moves_stack_unknown"]

_ALIGNED = 16  # bytes; what the ABI promises of rsp at a function's call
_BY_A_WORD = frozenset({"push", "pop", "pushfq", "popfq", "call", "ret", "leave"})
_BASES = ("rsp", "rbp")


def moves_stack_unknown(memory: ReadableMemory, start: int, end: int) -> bool:
    """Whether an instruction from `start` up to, not with, `end` moves rsp by what the code does not tell.

    Code is taken to use rbp for nothing but the function's frame when it takes rsp from there.
    """
    code = memory.read(start, end - start)
    with interrupts_held():
        # Few instructions name rsp, and to decode the operands of all takes ten times as long.
        lines = list(capstone_engine().disasm_lite(code, start))
    disassembler = Disassembler(memory)
    return any(_is_unknown(disassembler.at(at)) for at, _, _, operands in lines if "rsp" in operands)


def _is_unknown(instruction: Instruction) -> bool:
    if "rsp" not in instruction.writes or instruction.mnemonic in _BY_A_WORD:
        return False
    match instruction.mnemonic, instruction.operands:
        case "add" | "sub", (RegisterOperand("rsp", 8), ImmediateOperand()):
            return False
        case "and", (RegisterOperand("rsp", 8), ImmediateOperand(mask)):
            return not -_ALIGNED <= to_signed(mask) < 0
        case "mov", (RegisterOperand("rsp", 8), RegisterOperand("rbp", 8)):
            return False
        case "lea", (RegisterOperand("rsp", 8), MemoryOperand(base=base, index=None)):
            return base not in _BASES
        case _:
            return True
