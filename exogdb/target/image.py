"""The sections of the kernel's image as GDB has loaded them, relocated if the user gave an offset."""

import re
from collections.abc import Iterator

import gdb

from exogdb.abi.check.facts import Section
from exogdb.errors import UnavailableError

__all__ = ["parse_sections", "read_kernel_sections"]

# `maint info sections -all-objects` prints a header for each file and a line for each section:
#  [2]      0xffffffff80106000->0xffffffff801109af at 0x00007000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
_FILE = re.compile(r"^(?:Exec|Object) file: [`'](?P<name>.*)', file type")
_SECTION = re.compile(
    r"^\s*\[\d+\]\s+(?P<start>0x[0-9a-f]+)->(?P<end>0x[0-9a-f]+) at \S+: (?P<name>\S+) (?P<flags>.*)$"
)


def parse_sections(text: str, file: str) -> tuple[Section, ...]:
    """The sections of `file` that take up memory, in GDB's order; empty if GDB does not list that file."""
    return tuple(dict.fromkeys(_for_each_section(text, file)))


def _for_each_section(text: str, file: str) -> Iterator[Section]:
    inside = False
    for line in text.splitlines():
        header = _FILE.match(line)
        inside = header["name"] == file if header else inside
        found = _SECTION.match(line)
        if not inside or found is None:
            continue
        flags = set(found["flags"].split())
        start, end = int(found["start"], 16), int(found["end"], 16)
        if "ALLOC" in flags and start < end:
            yield Section(found["name"], start, end, executable="CODE" in flags, writable="READONLY" not in flags)


def read_kernel_sections() -> tuple[Section, ...]:
    """The sections of the main symbol file. Asks GDB only, not the guest.

    :raise UnavailableError: no symbol file is loaded, or it has no sections that take up memory.
    """
    space = gdb.selected_inferior().progspace
    file = space.filename or next((objfile.filename for objfile in space.objfiles()), None)
    if file is None:
        raise UnavailableError("no symbol file of the kernel is loaded (`file KERNEL.elf`)")
    text = gdb.execute("maint info sections -all-objects", to_string=True)
    sections = parse_sections(text, file)
    if not sections:
        raise UnavailableError(f"GDB lists no sections of {file}")
    return sections
