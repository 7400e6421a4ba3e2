"""x86-64 machine code as typed instructions: what it is, and which registers and memory its operands name.

A thin layer over capstone, so that nothing above it depends on capstone's constants or reads operands out of text.
Registers are named in their 64-bit form with the operand's size beside it: `eax` is `RegisterOperand("rax", 4)`.

>>> from exogdb.x86.memory import ReadableMemory
>>> class Text:
...     def read(self, address: int, size: int) -> bytes:
...         return bytes.fromhex("65488b242508000000").ljust(0x100, b"\\x90")[address : address + size]
>>> load = Disassembler(Text()).at(0)
>>> load.text, load.next
('mov rsp, qword ptr gs:[8]', 9)
>>> load.operands[1]
MemoryOperand(segment='gs', base=None, index=None, scale=1, displacement=8, size=8)
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias

from exogdb.errors import AnalysisError, MemoryFault
from exogdb.interrupts import interrupts_held
from exogdb.x86.memory import ReadableMemory

__all__ = [
    "GENERAL_REGISTERS",
    "Disassembler",
    "ImmediateOperand",
    "Instruction",
    "MemoryOperand",
    "Operand",
    "RegisterOperand",
    "capstone_engine",
    "widen_register",
]

GENERAL_REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
LONGEST_INSTRUCTION = 15  # bytes; Intel SDM Vol. 2A, AVX Instruction Length
# The registers that capstone 5 does not say are written. Of VMCALL and VMMCALL it is the result of Linux's hosts.
UNREPORTED_WRITES = {
    "rdpkru": ("rax", "rdx"),
    "xlatb": ("rax",),
    "enter": ("rsp", "rbp"),
    "vmcall": ("rax",),
    "vmmcall": ("rax",),
    "encls": ("rax", "rbx", "rcx", "rdx"),
    "pconfig": ("rax",),
}
READS_SHADOW_STACK = frozenset({"rdsspd", "rdsspq"})  # into their operand, which capstone does not say either
# A power of two that divides the page size: a block is mapped as a whole or not at all.
_BLOCK_SIZE = 256


@dataclass(frozen=True)
class RegisterOperand:
    """A register: its 64-bit name, the size used in bytes, and whether bits 8 to 15 are meant (`ah`)."""

    name: str
    size: int
    high_byte: bool = False


@dataclass(frozen=True)
class ImmediateOperand:
    """A constant as the instruction uses it, sign-extended; for a direct branch, the target's address."""

    value: int


@dataclass(frozen=True)
class MemoryOperand:
    """`segment:[base + index * scale + displacement]`, `size` bytes. rip-relative ones have base `rip`."""

    segment: str | None
    base: str | None
    index: str | None
    scale: int
    displacement: int
    size: int


Operand: TypeAlias = RegisterOperand | ImmediateOperand | MemoryOperand


@dataclass(frozen=True)
class Instruction:
    """One instruction; `code` is its bytes.

    `writes` names the registers it changes, implicit ones included, in their 64-bit form.
    """

    address: int
    code: bytes
    mnemonic: str
    text: str
    operands: tuple[Operand, ...]
    writes: frozenset[str]

    @property
    def size(self) -> int:
        """In bytes, 1 to 15."""
        return len(self.code)

    @property
    def next(self) -> int:
        """The address of the instruction behind this one."""
        return self.address + self.size

    @property
    def is_conditional(self) -> bool:
        """A branch that may fall through: `jz`, `jrcxz`, `loop`."""
        return self.mnemonic.startswith("loop") or (self.mnemonic[0] == "j" and self.mnemonic != "jmp")

    @property
    def target(self) -> int | None:
        """Where a direct branch or call goes; None for every other instruction."""
        if self.mnemonic not in ("jmp", "call") and not self.is_conditional:
            return None
        operand = self.operands[0]
        return operand.value % (1 << 64) if isinstance(operand, ImmediateOperand) else None


def _register_forms() -> dict[str, tuple[str, int, bool]]:
    forms: dict[str, tuple[str, int, bool]] = {"rip": ("rip", 8, False), "eip": ("rip", 4, False)}
    for letter in "abcd":
        wide = f"r{letter}x"
        forms[f"{letter}h"] = (wide, 1, True)
        for name, size in ((wide, 8), (f"e{letter}x", 4), (f"{letter}x", 2), (f"{letter}l", 1)):
            forms[name] = (wide, size, False)
    for stem in ("si", "di", "bp", "sp"):
        for name, size in ((f"r{stem}", 8), (f"e{stem}", 4), (stem, 2), (f"{stem}l", 1)):
            forms[name] = (f"r{stem}", size, False)
    for number in range(8, 16):
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            forms[f"r{number}{suffix}"] = (f"r{number}", size, False)
    return forms


REGISTER_FORMS = _register_forms()


def widen_register(name: str) -> str:
    """The 64-bit register that `name` is a part of; other registers (`cr3`, `gs`) are themselves.

    >>> [widen_register(name) for name in ("eax", "r9d", "ah", "spl", "cr3")]
    ['rax', 'r9', 'rax', 'rsp', 'cr3']
    """
    return REGISTER_FORMS[name][0] if name in REGISTER_FORMS else name


@cache
def capstone_engine(*, skips_data: bool = False) -> Any:
    """Capstone for 64-bit code: with operands, or one that passes over bytes that are no instruction.

    Made once and kept: in its constructor and its finaliser Ctrl-C would be a message of Python's, and be lost.
    """
    import capstone

    with interrupts_held():
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        engine.detail, engine.skipdata = not skips_data, skips_data
    return engine


class Disassembler:
    """Decodes single instructions from `memory`, each address once. Memory is read by the block of 256 bytes."""

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory = memory
        self._blocks: dict[int, bytes | None] = {}
        self._decoded: dict[int, Instruction] = {}

    def at(self, address: int) -> Instruction:
        """The instruction at `address` (virtual). Reads up to two blocks; changes nothing.

        :raise MemoryFault: there is no readable byte at `address`.
        :raise AnalysisError: the bytes there are no instruction.
        """
        if address not in self._decoded:
            self._decoded[address] = self._decode(address)
        return self._decoded[address]

    def _decode(self, address: int) -> Instruction:
        code = self._read_code(address)
        instruction = _decode(code, address)
        if instruction is None:
            raise AnalysisError(f"the bytes at {address:#x} ({code[:8].hex(' ')}) are no instruction", address)
        return instruction

    def _read_code(self, address: int) -> bytes:
        offset = address % _BLOCK_SIZE
        block = self._block(address - offset)
        code = None if block is None else block[offset : offset + LONGEST_INSTRUCTION]
        if code is not None and len(code) < LONGEST_INSTRUCTION:
            following = self._block(address - offset + _BLOCK_SIZE)
            code = None if following is None else code + following[: LONGEST_INSTRUCTION - len(code)]
        return self._read_exactly(address) if code is None else code

    def _block(self, start: int) -> bytes | None:
        """None: not all of it can be read."""
        if start not in self._blocks:
            try:
                self._blocks[start] = self._memory.read(start, _BLOCK_SIZE)
            except MemoryFault:
                self._blocks[start] = None
        return self._blocks[start]

    def _read_exactly(self, address: int) -> bytes:
        try:
            return self._memory.read(address, LONGEST_INSTRUCTION)
        except MemoryFault:
            to_page_end = 0x1000 - address % 0x1000
            if to_page_end >= LONGEST_INSTRUCTION:
                raise
            return self._memory.read(address, to_page_end)


@lru_cache(maxsize=1 << 14)
def _decode(code: bytes, address: int) -> Instruction | None:
    """The instruction that `code` begins with. One stub is read by many commands, and each time it is the same."""
    # To its end: a generator that is dropped half-way would meet a Ctrl-C in its finaliser, where it is lost.
    instructions = list(capstone_engine().disasm(code, address, 1))
    if not instructions:
        return None
    found = instructions[0]
    mnemonic = found.mnemonic.split()[-1]  # drops prefixes: `lock`, `bnd`, `rep`
    operands = tuple(_decode_operand(operand) for operand in found.operands)
    reported = frozenset(widen_register(_register_name(number)) for number in found.regs_access()[1])
    return Instruction(
        address=address,
        code=bytes(found.bytes),
        mnemonic=mnemonic,
        text=f"{found.mnemonic} {found.op_str}".strip(),
        operands=operands,
        writes=reported | _find_unreported(mnemonic, operands),
    )


def _find_unreported(mnemonic: str, operands: tuple[Operand, ...]) -> frozenset[str]:
    target = operands[0] if operands else None
    if mnemonic in READS_SHADOW_STACK and isinstance(target, RegisterOperand):
        return frozenset({target.name})
    return frozenset(UNREPORTED_WRITES.get(mnemonic, ()))


@cache
def _register_name(number: int) -> Any:
    """Capstone's; None for no register."""
    return capstone_engine().reg_name(number)


def _decode_operand(operand: Any) -> Operand:
    from capstone import x86

    if operand.type == x86.X86_OP_REG:
        name = _register_name(operand.reg)
        wide, size, high = REGISTER_FORMS.get(name, (name, operand.size, False))
        return RegisterOperand(wide, size, high)
    if operand.type == x86.X86_OP_IMM:
        return ImmediateOperand(operand.imm)
    memory = operand.mem
    return MemoryOperand(
        segment=_register_name(memory.segment),
        base=_wide_or_none(_register_name(memory.base)),
        index=_wide_or_none(_register_name(memory.index)),
        scale=memory.scale,
        displacement=memory.disp,
        size=operand.size,
    )


def _wide_or_none(name: str | None) -> str | None:
    return None if name is None else widen_register(name)
