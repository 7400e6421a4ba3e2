"""QEMU's register dumps, read by where things are in them rather than by what they look like.

A dump is some 1,160 bytes, of which a trace needs a quarter. All dumps of one kernel have the same shape, and the
segments in their middle are one of a few texts. So a dump is understood once by its text; from then on others of
its shape are taken apart by offsets, and those with the same segments need not look at them again. What fits no
known shape is understood by its text again: nothing is taken on trust that a dump has not shown before.
"""

import re
import struct
from typing import NamedTuple, TypeAlias

__all__ = ["Dump", "DumpReader", "Fields", "Segments"]

_HEX = rb"([0-9a-f]{16})"
_DUMP = re.compile(
    rb"(RAX=)%b RBX=%b RCX=%b RDX=%b\n"
    rb"RSI=%b RDI=%b RBP=%b RSP=%b\n"
    rb"R8 =%b R9 =%b R10=%b R11=%b\n"
    rb"(R12=[0-9a-f]{16} R13=[0-9a-f]{16} R14=[0-9a-f]{16} R15=[0-9a-f]{16})\n"
    rb"(?:R(?:1[6-9]|2[0-9]|3[01])=[^\n]*\n)*"  # only on a CPU with APX
    rb"(RIP=)%b RFL=[0-9a-f]{5}([0-9a-f])[^\n]*\n"
    rb"(ES =[^\n]*\nCS =[^\n]*\nSS =[^\n]*\nDS =[^\n]*\n"
    rb"FS =[0-9a-f]{4} [0-9a-f]{16} [^\n]*\nGS =[^\n]*\n"
    rb"LDT=[^\n]*\nTR =[0-9a-f]{4} [0-9a-f]{16} [^\n]*\n"
    rb"GDT=[^\n]*\nIDT=[^\n]*\nCR0=[0-9a-f]+ CR2=)[0-9a-f]+ CR3=%b [^\n]*\n"
    rb"(?:DR[^\n]*\n)+(?:CCS=[^\n]*\n)?EFER=[0-9a-f]{16}\n" % ((_HEX,) * 14)
)
_SEGMENTS = re.compile(rb"\nFS =[0-9a-f]{4} ([0-9a-f]{16}) .*\nTR =[0-9a-f]{4} ([0-9a-f]{16}) ", re.DOTALL)
_LAST_LINE = b"\nEFER="
_LAST_LINE_SIZE = len(_LAST_LINE) + 17
# From CR3 to the last line: CR4, the debug registers and the state of the lazy flags, less than another dump.
_LONGEST_REST = 400
_MOST_SHAPES = 16
_MOST_SEGMENTS = 4096

Fields: TypeAlias = tuple[bytes, ...]
"""What differs from dump to dump, as written: `RAX=`, rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11, r12 to r15 as
one, `RIP=`, rip, the digit of RFLAGS that has IF, the segments' lines as one, cr3."""

_RIP_NAME = 14
_SEGMENTS_FIELD = 17


class Segments(NamedTuple):
    """What a trace needs of the segments' lines: both bases as 16 hexadecimal digits."""

    fs_base: bytes
    task: bytes


class Dump(NamedTuple):
    """One dump, and where it ends in the text."""

    fields: Fields
    segments: Segments
    end: int


class DumpReader:
    """Remembers the shapes and segments that it has met."""

    def __init__(self) -> None:
        self._shapes: list[struct.Struct] = []
        self._segments: dict[bytes, Segments] = {}

    def read(self, text: bytes, position: int) -> Dump | None:
        """The dump that begins at `position`, if it is whole and like one that has been met (`find`)."""
        for shape in self._shapes:
            rest = position + shape.size
            if rest > len(text):
                continue
            fields = shape.unpack_from(text, position)
            segments = self._segments.get(fields[_SEGMENTS_FIELD])
            if segments is None or fields[0] != b"RAX=" or fields[_RIP_NAME] != b"RIP=":
                continue
            last = text.find(_LAST_LINE, rest, rest + _LONGEST_REST)
            if 0 <= last <= len(text) - _LAST_LINE_SIZE:
                return Dump(fields, segments, last + _LAST_LINE_SIZE)
        return None

    def find(self, text: bytes, position: int) -> tuple[int, Dump] | None:
        """The first whole dump at or behind `position`, and where it begins. `read` will know others like it."""
        match = _DUMP.search(text, position)
        if match is None:
            return None
        fields = match.groups()
        segments = self._learn_segments(fields[_SEGMENTS_FIELD])
        self._learn_shape(match)
        return match.start(), Dump(fields, segments, match.end())

    def _learn_shape(self, match: re.Match[bytes]) -> None:
        layout, behind = "<", match.start()
        for group in range(1, _DUMP.groups + 1):
            start, end = match.span(group)
            layout += f"{start - behind}x{end - start}s"
            behind = end
        if all(layout != known.format for known in self._shapes):
            self._shapes = [struct.Struct(layout), *self._shapes[: _MOST_SHAPES - 1]]

    def _learn_segments(self, lines: bytes) -> Segments:
        if len(self._segments) >= _MOST_SEGMENTS:
            self._segments.clear()
        bases = _SEGMENTS.search(lines)
        assert bases is not None, "the expression for a whole dump has it, too"
        segments = self._segments[lines] = Segments(bases[1], bases[2])
        return segments
