"""Entry stubs as bytes: assembled from `stubs/NAME.s` by GNU as, linked at `TEXT`."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from exogdb.errors import MemoryFault

__all__ = ["TEXT", "Stub", "StubMemory", "assemble", "assemble_stub", "read_symbols"]

TEXT = 0xFFFFFFFF80100000
STUBS = Path(__file__).parent / "stubs"


@dataclass(frozen=True)
class StubMemory:
    """`content` at `base`; nothing else is mapped."""

    base: int
    content: bytes

    def read(self, address: int, size: int) -> bytes:
        offset = address - self.base
        if offset < 0 or offset + size > len(self.content):
            raise MemoryFault(address, size)
        return self.content[offset : offset + size]


@dataclass(frozen=True)
class Stub:
    """An assembled stub: its memory and the addresses of its labels."""

    memory: StubMemory
    labels: dict[str, int]


def assemble_stub(name: str) -> Stub:
    """`stubs/NAME.s`, linked at `TEXT`."""
    return assemble((STUBS / f"{name}.s").read_text())


@cache
def assemble(text: str) -> Stub:
    """Assembly text (Intel syntax, no prefixes) that begins with the label `syscall_entry`, linked at `TEXT`."""
    with TemporaryDirectory() as directory:
        source, built, linked, raw = (f"{directory}/stub.{kind}" for kind in ("s", "o", "elf", "bin"))
        Path(source).write_text(f".intel_syntax noprefix\n.globl syscall_entry\n{text}")
        subprocess.run(["as", "--64", "-o", built, source], check=True, timeout=20)
        link = ["ld", "-e", "syscall_entry", f"-Ttext={TEXT:#x}", "-o", linked, built]
        subprocess.run(link, check=True, timeout=20)
        copy = ["objcopy", "-O", "binary", "-j", ".text", linked, raw]
        subprocess.run(copy, check=True, timeout=20)
        return Stub(StubMemory(TEXT, Path(raw).read_bytes().ljust(0x1000, b"\xcc")), read_symbols(Path(linked)))


def read_symbols(elf: Path) -> dict[str, int]:
    """The address of every symbol that has a name, by readelf, which nm takes ten times as long for."""
    table = subprocess.run(["readelf", "-sW", elf], check=True, timeout=20, capture_output=True, text=True).stdout
    # Num:    Value          Size Type    Bind   Vis      Ndx Name
    rows = [fields for fields in map(str.split, table.splitlines()) if len(fields) == 8 and fields[6] != "Ndx"]
    return {fields[7]: int(fields[1], 16) for fields in rows}
