"""The sections of the files that GDB has loaded, and which of the files is the kernel's. Pure."""

import re
from collections.abc import Iterator, Mapping

from exogdb.abi.section import Section
from exogdb.x86.address import is_upper_half

__all__ = ["find_code_with_tables", "find_kernel_code", "find_kernel_sections", "parse_sections"]

# `maint info sections -all-objects` prints a header for each file and a line for each section:
#  [2]      0xffffffff80106000->0xffffffff801109af at 0x00007000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
_TABLES = (".eh_frame", ".debug_frame")
_FILE = re.compile(r"^(?:Exec|Object) file: [`'](?P<name>.*)', file type")
_SECTION = re.compile(
    r"^\s*\[\d+\]\s+(?P<start>0x[0-9a-f]+)->(?P<end>0x[0-9a-f]+) at (?P<at>0x[0-9a-f]+): "
    r"(?P<name>\S+) (?P<flags>.*)$"
)


def parse_sections(text: str) -> dict[str, tuple[Section, ...]]:
    """For each file that GDB lists, the sections that take up memory, in GDB's order."""
    found: dict[str, dict[Section, None]] = {}
    for file, line in _for_each_section(text):
        start, end, flags = int(line["start"], 16), int(line["end"], 16), set(line["flags"].split())
        if "ALLOC" in flags and start < end:
            section = Section(
                line["name"], start, end, executable="CODE" in flags, writable="READONLY" not in flags
            )
            found.setdefault(file, {})[section] = None
    return {name: tuple(sections) for name, sections in found.items()}


def _for_each_section(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The file that each section belongs to, and its line."""
    file = ""
    for line in text.splitlines():
        header, section = _FILE.match(line), _SECTION.match(line)
        file = header["name"] if header is not None else file
        if section is not None:
            yield file, section


def find_code_with_tables(text: str) -> list[range]:
    """The addresses of all code in files that have unwind tables, from the same listing."""
    code: dict[str, list[range]] = {}
    with_tables = set()
    for file, line in _for_each_section(text):
        extent = range(int(line["start"], 16), int(line["end"], 16))
        if line["name"] in _TABLES and extent:
            with_tables.add(file)
        elif "CODE" in line["flags"].split():
            code.setdefault(file, []).append(extent)
    return [extent for name, extents in code.items() if name in with_tables for extent in extents]


def find_kernel_code(text: str) -> dict[str, list[tuple[int, int, int]]]:
    """For each file its code in the upper half that is never written: (address, file offset, size in bytes).

    Addresses are where GDB has put the sections, which is not where they were linked if the user gave an offset.
    """
    code: dict[str, list[tuple[int, int, int]]] = {}
    for file, line in _for_each_section(text):
        start, end = int(line["start"], 16), int(line["end"], 16)
        if is_upper_half(start) and {"CODE", "READONLY", "HAS_CONTENTS"} <= set(line["flags"].split()):
            code.setdefault(file, []).append((start, int(line["at"], 16), end - start))
    return code


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
