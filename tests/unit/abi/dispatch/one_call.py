"""One call of a compiled dispatcher, run from its first instruction to its return in a CPU emulator of its own."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tests.unit.abi.kernel_images import Image

__all__ = ["addresses_passed"]

STACK, BACK = 0x7000_0000_0000, 0x7100_0000_0000
LOW_52 = (1 << 52) - 1
MOST_INSTRUCTIONS = 20_000


def addresses_passed(
    image: Image, number: int, arguments: tuple[int, ...] = (), words: Mapping[str, int] | None = None
) -> list[int]:
    """The address of each instruction that the call executes, in order.

    `words` are 8-byte words of the kernel's memory, by symbol, that have another value than in the image.
    """
    unicorn: Any = import_module("unicorn")
    cpu = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for page, data in image.pages.items():
        cpu.mem_map(page & LOW_52, 0x1000)
        cpu.mem_write(page & LOW_52, data)
    for symbol, value in (words or {}).items():
        cpu.mem_write(image.symbols[symbol] & LOW_52, value.to_bytes(8, "little"))
    cpu.mem_map(STACK, 0x10000)
    cpu.mem_map(BACK, 0x1000)
    cpu.mem_write(STACK + 0x8000, BACK.to_bytes(8, "little"))
    cpu.reg_write(unicorn.x86_const.UC_X86_REG_RSP, STACK + 0x8000)
    for name, value in zip(("RDI", "RSI", "RDX", "RCX", "R8", "R9"), (number, *arguments), strict=False):
        cpu.reg_write(getattr(unicorn.x86_const, f"UC_X86_REG_{name}"), value % (1 << 64))
    passed: list[int] = []
    cpu.hook_add(unicorn.UC_HOOK_CODE, lambda _cpu, address, _size, _data: passed.append(address))
    cpu.emu_start(image.symbols["syscall_dispatch"], BACK, count=MOST_INSTRUCTIONS)
    assert cpu.reg_read(unicorn.x86_const.UC_X86_REG_RIP) == BACK
    return [address | 0xFFF << 52 if address >> 51 & 1 else address for address in passed]
