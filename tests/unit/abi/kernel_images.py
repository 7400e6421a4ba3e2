"""Small dispatchers, compiled when a test needs them, as memory at kernel addresses."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from exogdb.errors import MemoryFault
from tests.unit.abi.stub_fixture import read_symbols

__all__ = ["BASE", "Image", "build_assembly", "build_c", "build_rust"]

BASE = 0xFFFF_FFFF_8010_0000
_PAGE = 4096


@dataclass(frozen=True)
class Image:
    """A linked program: its loaded bytes by page, and the address of every symbol."""

    pages: dict[int, bytes]
    symbols: dict[str, int]

    def read(self, address: int, size: int) -> bytes:
        """As `exogdb.x86.memory.ReadableMemory`, in whole pages and parts of them."""
        data = b""
        for page in range(address & -_PAGE, address + size, _PAGE):
            if page not in self.pages:
                raise MemoryFault(page, _PAGE)
            data += self.pages[page]
        return data[address % _PAGE :][:size]


def build_assembly(source: str) -> Image:
    """GNU assembler, Intel syntax."""
    return _build("dispatch.s", ".intel_syntax noprefix\n" + source, ("as", "-o", "OUT", "IN"))


def build_c(source: str, optimisation: str) -> Image:
    """C for a kernel: no red zone, no position independence, each function in its own section."""
    flags = ("-ffreestanding", "-fno-pie", "-mcmodel=kernel", "-mno-red-zone", "-ffunction-sections")
    return _build("dispatch.c", source, ("gcc", "-c", optimisation, *flags, "-o", "OUT", "IN"))


def build_rust(source: str, optimisation: str) -> Image:
    """Rust without std, as the reference kernel is built."""
    flags = ("relocation-model=static", "code-model=kernel", "no-redzone=yes", "panic=abort", optimisation)
    options = [word for flag in flags for word in ("-C", flag)]
    command = ("rustc", "--edition=2021", "--crate-type=rlib", "--emit=obj", *options, "-o", "OUT", "IN")
    return _build("dispatch.rs", "#![no_std]\n" + source, command)


@cache
def _build(name: str, source: str, command: tuple[str, ...]) -> Image:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / name).write_text(source)
        (folder / "link.ld").write_text(_LINKER_SCRIPT)
        words = {"OUT": str(folder / "out.o"), "IN": str(folder / name)}
        _run(*(words.get(word, word) for word in command))
        _run("ld", "--unresolved-symbols=ignore-all", "-T", str(folder / "link.ld"), "-o", str(folder / "image"),
             str(folder / "out.o"))  # fmt: skip
        _run("objcopy", "-O", "binary", str(folder / "image"), str(folder / "raw"))
        raw = (folder / "raw").read_bytes()
        symbols = read_symbols(folder / "image")
    pages = {BASE + at: raw[at : at + _PAGE].ljust(_PAGE, b"\0") for at in range(0, len(raw), _PAGE)}
    return Image(pages, symbols)


# Handlers in pages of their own, as a kernel has them that keeps its entry path together.
_LINKER_SCRIPT = f"""
SECTIONS {{
  . = {BASE:#x};
  .text : {{ *(.text.syscall_dispatch) *(.text .text.unlikely* .text.dispatch*)
            . = ALIGN(4096); *(.text.sys_exit) . = ALIGN(4096); *(.text.sys_getpid)
            . = ALIGN(4096); *(.text.sys_send) . = ALIGN(4096); *(.text.*) }}
  . = ALIGN(4096);
  .rodata : {{ *(.rodata .rodata.*) }}
  . = ALIGN(4096);
  .data : {{ *(.data .data.* .bss .bss.* COMMON) LONG(0) }}
  /DISCARD/ : {{ *(.note* .comment .eh_frame*) }}
}}
"""


def _run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stderr}"
    return finished.stdout
