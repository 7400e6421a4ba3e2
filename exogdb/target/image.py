"""The sections of the kernel's image as GDB has loaded them, relocated if the user gave an offset."""

from exogdb.abi.section import Section
from exogdb.errors import UnavailableError
from exogdb.target.gdb_command import ask_gdb
from exogdb.target.sections import find_kernel_sections, parse_sections

__all__ = ["read_kernel_sections"]


def read_kernel_sections(entry: int | None) -> tuple[Section, ...]:
    """The sections of the kernel that runs; `entry` is where LSTAR leads, if known. Asks GDB only, not the guest.

    :raise UnavailableError: no symbol file that is loaded is the kernel's.
    """
    files = parse_sections(ask_gdb("maint info sections -all-objects"))
    sections = find_kernel_sections(files, entry)
    if sections is None:
        raise UnavailableError("no symbol file of the kernel is loaded (`file KERNEL.elf`)")
    return sections
