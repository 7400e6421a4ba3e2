"""Does compiled code rely on a stack that is aligned to 16 bytes? It does where it uses MOVAPS on it.

A kernel that is built without vector instructions, or for stacks aligned to 8 bytes as Linux is
(`-mno-sse -mpreferred-stack-boundary=3`), has no such instruction.
"""

from exogdb.abi.stub.disassembly import capstone_engine

__all__ = ["find_aligned_stack_use"]

_LEGACY = ("movaps", "movapd", "movdqa", "movntps", "movntpd", "movntdq")
ALIGNED_MOVES = frozenset((*_LEGACY, *(f"v{name}" for name in _LEGACY)))


def find_aligned_stack_use(code: bytes, address: int) -> int | None:
    """The address of the first instruction in `code` that faults unless its place on the stack is aligned to 16.

    `code` lies at `address` and begins with an instruction. Bytes that are no instruction are passed over.

    >>> hex(find_aligned_stack_use(bytes.fromhex("55 0f29442410 c3"), 0x1000))
    '0x1001'
    >>> find_aligned_stack_use(bytes.fromhex("55 0f11442410 c3"), 0x1000) is None
    True
    """
    instructions = list(capstone_engine(skips_data=True).disasm_lite(code, address))
    found = (at for at, _, mnemonic, _ in instructions if mnemonic in ALIGNED_MOVES)
    return next((at for at in found if _is_on_stack(code[at - address :], at)), None)


def _is_on_stack(code: bytes, address: int) -> bool:
    from capstone import x86

    (instruction,) = capstone_engine().disasm(code, address, 1)
    memory = (each.mem.base for each in instruction.operands if each.type == x86.X86_OP_MEM)
    return any(base in (x86.X86_REG_RSP, x86.X86_REG_RBP) for base in memory)
