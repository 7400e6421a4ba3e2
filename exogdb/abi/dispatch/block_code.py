"""The instructions of the blocks that runs have passed, and the addresses that these name."""

from collections.abc import Iterable

from exogdb.abi.dispatch.trace import Block
from exogdb.abi.stub.disassembly import Disassembler, ImmediateOperand, Instruction, MemoryOperand
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["BlockCode"]


class BlockCode:
    """The code of `memory`, taken apart a block at a time, each once."""

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory = memory
        self._disassembler = Disassembler(memory)
        self._decoded: dict[Block, tuple[Instruction, ...]] = {}

    def instructions(self, block: Block) -> tuple[Instruction, ...]:
        """Those of `block` in order, none if its bytes cannot be read or are no code."""
        if block not in self._decoded:
            try:
                self._decoded[block] = tuple(self._decode(block))
            except (AnalysisError, MemoryFault):
                self._decoded[block] = ()
        return self._decoded[block]

    def may_branch(self, block: Block) -> bool:
        """Whether `block` may end with a conditional branch, by its last bytes: decoding it takes long."""
        try:
            code = self._memory.read(block.start, block.end - block.start)
        except MemoryFault:
            return False
        is_short = len(code) >= 2 and (code[-2] >> 4 == 7 or code[-2] in range(0xE0, 0xE4))  # jcc, loop, jrcxz
        return is_short or (len(code) >= 6 and code[-6] == 0x0F and code[-5] >> 4 == 8)

    def last(self, block: Block) -> Instruction | None:
        """The last instruction of `block`, None if it has none."""
        found = self.instructions(block)
        return found[-1] if found and found[-1].next == block.end else None

    def named_addresses(self, blocks: Iterable[Block]) -> set[int]:
        """The addresses that are in the code of `blocks` itself: they are the same for whoever runs it."""
        return {
            address
            for block in blocks
            for instruction in self.instructions(block)
            for address in _named_by(instruction)
        }

    def _decode(self, block: Block) -> Iterable[Instruction]:
        at = block.start
        while at < block.end:
            instruction = self._disassembler.at(at)
            yield instruction
            at = instruction.next


def _named_by(instruction: Instruction) -> Iterable[int]:
    for operand in instruction.operands:
        match operand:
            case ImmediateOperand(value):
                yield value & MASK_64
            case MemoryOperand(segment=None, base="rip", index=None, displacement=offset):
                yield (instruction.next + offset) & MASK_64
            case MemoryOperand(segment=None, base=None, index=None, displacement=offset):
                yield offset & MASK_64
