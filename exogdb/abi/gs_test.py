"""Does an exception handler tell by the sign of the active GS base whose it is?

    mov ecx, 0xc0000101     IA32_GS_BASE
    rdmsr
    test edx, edx
    js kernel_has_swapped

That holds as long as only the kernel can set the base. With CR4.FSGSBASE a program can: WRGSBASE takes any
canonical address, also one in the upper half.
"""

from collections import deque
from collections.abc import Iterable

from exogdb.abi.stub.disassembly import Disassembler, ImmediateOperand, Instruction, RegisterOperand
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["find_gs_sign_test"]

IA32_GS_BASE = 0xC0000101
MOST_INSTRUCTIONS = 600  # what an exception handler does before it calls compiled code has a hundred at most
NEAR = 4  # instructions between setting ecx, RDMSR and the test
TESTS = frozenset({"test", "or", "and", "cmp", "bt", "shl", "add"})
ENDS = frozenset({"ret", "iretq", "sysretq", "hlt", "ud2"})


def find_gs_sign_test(memory: ReadableMemory, handler: int) -> int | None:
    """The RDMSR of IA32_GS_BASE whose upper half is tested in the code at `handler` or in what it calls directly.

    Reads code only, at most 600 instructions. None: there is no such test among them.
    :raise MemoryFault: there is no code at `handler`.
    :raise AnalysisError: the bytes there are no instruction.
    """
    disassembler = Disassembler(memory)
    disassembler.at(handler)
    seen: set[int] = set()
    waiting = deque([handler])
    while waiting and len(seen) < MOST_INSTRUCTIONS:
        address = waiting.popleft()
        before: deque[Instruction] = deque(maxlen=NEAR)
        while address not in seen and len(seen) < MOST_INSTRUCTIONS:
            seen.add(address)
            try:
                instruction = disassembler.at(address)
            except (MemoryFault, AnalysisError):
                break  # this path cannot be followed; the others can
            if _reads_gs_base(instruction, before) and _is_tested(disassembler, instruction.next):
                return address
            before.append(instruction)
            if instruction.target is not None:
                waiting.append(instruction.target)
            if instruction.mnemonic in ENDS or instruction.mnemonic == "jmp":
                break
            address = instruction.next
    return None


def _reads_gs_base(instruction: Instruction, before: Iterable[Instruction]) -> bool:
    return instruction.mnemonic == "rdmsr" and any(
        each.mnemonic == "mov"
        and _is_register(each, "rcx")
        and isinstance(each.operands[1], ImmediateOperand)
        and each.operands[1].value & 0xFFFFFFFF == IA32_GS_BASE
        for each in before
    )


def _is_tested(disassembler: Disassembler, address: int) -> bool:
    """Whether a branch depends on edx, the upper half of what RDMSR read, within the next instructions."""
    tested = False
    for _ in range(NEAR):
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return False
        if tested and instruction.is_conditional:
            return True
        tested = tested or (instruction.mnemonic in TESTS and _is_register(instruction, "rdx"))
        address = instruction.next
    return False


def _is_register(instruction: Instruction, name: str) -> bool:
    first = instruction.operands[0] if instruction.operands else None
    return isinstance(first, RegisterOperand) and first.name == name
