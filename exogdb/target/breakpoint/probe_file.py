"""A symbol file that holds nothing but probes, so that GDB sees many addresses as one breakpoint. Pure.

GDB has no location that means "these addresses". It does have one that means "every probe called X", and it reads
probes from SystemTap's notes in any ELF file. A file with one note for each address makes `break -probe P:X` one
row with one location for each of them, and loading another file moves it: GDB's own re-setting does the rest.

Layout of a note (type 3, owner `stapsdt`; SystemTap wiki, "UserSpaceProbeImplementation")::

    u64 location    u64 base    u64 semaphore    provider NUL    name NUL    arguments NUL

`base` is the address of the section `.stapsdt.base`, zero here, so that locations are taken as they are.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Probe", "make_probe_file"]

_OWNER = b"stapsdt\0"
_NOTE_TYPE = 3
_HEADER_SIZE, _SECTION_SIZE = 64, 64
_NAMES = b"\0.text\0.note.stapsdt\0.stapsdt.base\0.shstrtab\0"
_PROGBITS, _STRTAB, _NOTE, _NOBITS = 1, 3, 7, 8
_ALLOC, _EXECINSTR = 2, 4


@dataclass(frozen=True)
class Probe:
    """One address under a name of its provider. Neither name may hold a NUL."""

    provider: str
    name: str
    address: int


def make_probe_file(probes: Iterable[Probe]) -> bytes:
    """An ELF64 file (x86-64, little-endian) with one note for each probe and no symbols at all.

    >>> make_probe_file([])[:4]
    b'\\x7fELF'
    """
    notes = b"".join(_make_note(probe) for probe in probes)
    body = notes + _NAMES
    body += bytes(-len(body) % 8)
    header = _make_header(_HEADER_SIZE + len(body))
    names_at = _HEADER_SIZE + len(notes)
    sections = (
        bytes(_SECTION_SIZE),
        # GDB relocates probes by the offset of .text, and insists that there is one.
        _make_section(b".text", _NOBITS, _ALLOC | _EXECINSTR, _HEADER_SIZE, 0),
        _make_section(b".note.stapsdt", _NOTE, 0, _HEADER_SIZE, len(notes)),
        _make_section(b".stapsdt.base", _PROGBITS, 0, _HEADER_SIZE, min(1, len(notes))),
        _make_section(b".shstrtab", _STRTAB, 0, names_at, len(_NAMES)),
    )
    return header + body + b"".join(sections)


def _make_note(probe: Probe) -> bytes:
    texts = b"".join(text.encode() + b"\0" for text in (probe.provider, probe.name, ""))
    description = struct.pack("<QQQ", probe.address, 0, 0) + texts
    note = struct.pack("<III", len(_OWNER), len(description), _NOTE_TYPE) + _OWNER + description
    return note + bytes(-len(note) % 4)


def _make_header(sections_at: int) -> bytes:
    identification = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    executable, x86_64 = 2, 62
    sizes = (_HEADER_SIZE, 56, 0, _SECTION_SIZE, 5, 4)
    return identification + struct.pack("<HHIQQQIHHHHHH", executable, x86_64, 1, 0, 0, sections_at, 0, *sizes)


def _make_section(name: bytes, kind: int, flags: int, offset: int, size: int) -> bytes:
    at = _NAMES.index(name + b"\0")
    return struct.pack("<IIQQQQIIQQ", at, kind, flags, 0, offset, size, 0, 0, 1, 0)
