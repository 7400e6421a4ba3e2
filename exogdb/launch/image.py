"""What is known about a kernel before it runs: where system calls enter it, and which files have its symbols."""

from dataclasses import dataclass
from pathlib import Path

from exogdb.errors import FormatError, UsageError
from exogdb.launch.elf import Elf, read_elf

__all__ = ["ENTRY_SYMBOLS", "Image", "read_image"]

# The reference kernel, Exo-OS as it is today, Linux.
ENTRY_SYMBOLS = ("syscall_entry", "syscall_entry_asm", "entry_SYSCALL_64")


@dataclass(frozen=True)
class Image:
    """A kernel on disk. `entry` is the address LSTAR will get; None when no symbol tells."""

    kernel: Path
    elf: Elf
    entry: int | None
    programs: tuple[Path, ...]


def read_image(kernel: Path, entry: str | None = None, symbols: tuple[Path, ...] = ()) -> Image:
    """The kernel at `kernel`, with the programs beside it in `programs/` and those in `symbols`.

    `entry` is a symbol or a number, for a kernel whose entry has none of `ENTRY_SYMBOLS`.

    :raise UsageError: a file is missing, or `entry` is neither a symbol of the kernel nor a number.
    :raise FormatError: `kernel` is no x86-64 ELF file.
    """
    for path in (kernel, *symbols):
        if not path.is_file():
            raise UsageError(f"there is no file {path}; `make kernel` builds build/kernel/exo-os.elf")
    try:
        elf = read_elf(kernel)
    except FormatError as error:
        raise FormatError(
            f"{error}; boot it with a QEMU of your own (docs/troubleshooting.md), or name its ELF file, vmlinux"
        ) from error
    programs = (*sorted((kernel.parent / "programs").glob("*.elf")), *symbols)
    return Image(kernel, elf, _find_entry(elf, entry), programs)


def _find_entry(elf: Elf, given: str | None) -> int | None:
    if given is None:
        return next((elf.symbols[name] for name in ENTRY_SYMBOLS if name in elf.symbols), None)
    if given in elf.symbols:
        return elf.symbols[given]
    try:
        return int(given, 0)
    except ValueError:
        raise UsageError(f"--entry {given}: neither a symbol of this kernel nor a number") from None
