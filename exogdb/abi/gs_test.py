"""Does an exception handler tell by the sign of the active GS base whose it is?

    mov ecx, 0xc0000101     IA32_GS_BASE
    rdmsr
    test edx, edx
    js kernel_has_swapped

or `rdgsbase rax`, `test rax, rax`, `js` where the kernel has set CR4.FSGSBASE.
That holds as long as only the kernel can set the base. With CR4.FSGSBASE a program can: WRGSBASE takes any
canonical address, also one in the upper half.
"""

from collections import deque
from collections.abc import Container, Iterable

from exogdb.abi.stub.disassembly import Disassembler, ImmediateOperand, Instruction, RegisterOperand
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["find_gs_sign_test"]

IA32_GS_BASE = 0xC0000101
MOST_INSTRUCTIONS = 600  # what an exception handler does before it calls compiled code has a hundred at most
NEAR = 4  # instructions between setting ecx, RDMSR and the test
TESTS = frozenset({"test", "or", "and", "cmp", "bt", "shl", "add"})
EQUALITY = frozenset({"je", "jne", "jz", "jnz"})  # with a base that is known to be the kernel's
ENDS = frozenset({"ret", "iretq", "sysretq", "hlt", "ud2"})


def find_gs_sign_test(memory: ReadableMemory, handler: int) -> int | None:
    """The RDMSR of IA32_GS_BASE or the RDGSBASE whose sign is tested, in the code at `handler` or what that calls.

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
            if _is_sign_test(disassembler, instruction, before):
                return address
            before.append(instruction)
            if instruction.target is not None:
                waiting.append(instruction.target)
            if instruction.mnemonic in ENDS or instruction.mnemonic == "jmp":
                break
            address = instruction.next
    return None


def _is_sign_test(disassembler: Disassembler, instruction: Instruction, before: Iterable[Instruction]) -> bool:
    if instruction.mnemonic != "rdgsbase":
        return _reads_gs_base(instruction, before) and _is_tested(disassembler, instruction.next, "rdx")
    match instruction.operands:
        case (RegisterOperand(register, 8),):
            return _is_tested(disassembler, instruction.next, register, EQUALITY)
    return False


def _reads_gs_base(instruction: Instruction, before: Iterable[Instruction]) -> bool:
    return instruction.mnemonic == "rdmsr" and any(
        each.mnemonic == "mov"
        and _is_register(each, "rcx")
        and isinstance(each.operands[1], ImmediateOperand)
        and each.operands[1].value & 0xFFFFFFFF == IA32_GS_BASE
        for each in before
    )


def _is_tested(disassembler: Disassembler, address: int, register: str, harmless: Container[str] = ()) -> bool:
    """Whether a branch that is none of the `harmless` depends on `register` within the next instructions."""
    tested = False
    for _ in range(NEAR):
        try:
            instruction = disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return False
        if tested and instruction.is_conditional:
            return instruction.mnemonic not in harmless
        tested = tested or (instruction.mnemonic in TESTS and _is_register(instruction, register))
        address = instruction.next
    return False


def _is_register(instruction: Instruction, name: str) -> bool:
    first = instruction.operands[0] if instruction.operands else None
    return isinstance(first, RegisterOperand) and first.name == name
