"""The sections of the files that GDB has loaded, and which of the files is the kernel's. Pure."""

import re
from collections.abc import Mapping

from exogdb.abi.check.facts import Section
from exogdb.x86.address import is_upper_half

__all__ = ["find_code_with_tables", "find_kernel_sections", "parse_sections"]

# `maint info sections -all-objects` prints a header for each file and a line for each section:
#  [2]      0xffffffff80106000->0xffffffff801109af at 0x00007000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
_TABLES = (".eh_frame", ".debug_frame")
_FILE = re.compile(r"^(?:Exec|Object) file: [`'](?P<name>.*)', file type")
_SECTION = re.compile(
    r"^\s*\[\d+\]\s+(?P<start>0x[0-9a-f]+)->(?P<end>0x[0-9a-f]+) at \S+: (?P<name>\S+) (?P<flags>.*)$"
)


def parse_sections(text: str) -> dict[str, tuple[Section, ...]]:
    """For each file that GDB lists, the sections that take up memory, in GDB's order."""
    found: dict[str, dict[Section, None]] = {}
    file = ""
    for line in text.splitlines():
        header = _FILE.match(line)
        file = header["name"] if header is not None else file
        section = _parse_section(line)
        if section is not None:
            found.setdefault(file, {})[section] = None
    return {name: tuple(sections) for name, sections in found.items()}


def _parse_section(line: str) -> Section | None:
    found = _SECTION.match(line)
    if found is None:
        return None
    flags = set(found["flags"].split())
    start, end = int(found["start"], 16), int(found["end"], 16)
    if "ALLOC" not in flags or start >= end:
        return None
    return Section(found["name"], start, end, executable="CODE" in flags, writable="READONLY" not in flags)


def find_code_with_tables(text: str) -> list[range]:
    """The addresses of all code in files that have unwind tables, from the same listing."""
    code: dict[str, list[range]] = {}
    with_tables = set()
    file = ""
    for line in text.splitlines():
        header, found = _FILE.match(line), _SECTION.match(line)
        file = header["name"] if header is not None else file
        if found is None:
            continue
        extent = range(int(found["start"], 16), int(found["end"], 16))
        if found["name"] in _TABLES and extent:
            with_tables.add(file)
        elif "CODE" in found["flags"].split():
            code.setdefault(file, []).append(extent)
    return [extent for name, extents in code.items() if name in with_tables for extent in extents]


def find_kernel_sections(
    files: Mapping[str, tuple[Section, ...]], entry: int | None
) -> tuple[Section, ...] | None:
    """The sections of the kernel's file, None if no file is the kernel's. The main file may be a user program.

    It is the one that holds `entry`; but where that is in the lower half, a file in the upper half comes first.
    """
    holding = [each for each in files.values() if entry is not None and any(entry in section for section in each)]
    upper = [each for each in files.values() if any(is_upper_half(section.start) for section in each)]
    both = [each for each in holding if each in upper]
    return next(iter(both or upper or holding), None)
