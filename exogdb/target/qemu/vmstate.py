"""The stream that QEMU's `xen-save-devices-state` writes: sections by name, and the vCPU state in them.

The command has nothing to do with Xen: it saves the state of every device and vCPU in QEMU's migration
format, without RAM. Everything is big-endian::

    "QEVM" u32 version=3
    section*:  0x04 u32 section_id  u8 len  len bytes name  u32 instance_id  u32 version_id   <- header
               body                                     (its length is written nowhere)
               0x7e u32 section_id                                                            <- footer
    0x00                                                                                      <- end

Source: QEMU migration/savevm.c (qemu_save_device_state, save_section_header, save_section_footer). A body
ends at the footer with its own section id that is followed by another header or by the end of the stream.
Section ids are unique, so there is exactly one such place; if there are more, device data imitates a section
and the stream is refused. No offset from the start of the stream is ever assumed.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from exogdb.errors import FormatError
from exogdb.target.qemu.vmstate_x86 import CpuState, decode_apic_base, decode_cpu, decode_halted

__all__ = ["Section", "decode_device_state", "for_each_section"]

MAGIC = b"QEVM"
STREAM_VERSION = 3
SECTION_FULL = 0x04
SECTION_FOOTER = 0x7E
END_OF_STREAM = 0x00
# The id is only looked at, not consumed: a footer may begin inside what looks like another one.
_FOOTER = re.compile(rb"\x7e(?=(....)[\x04\x00])", re.DOTALL)
_ID_AND_LENGTH, _INSTANCE_AND_VERSION = struct.Struct(">IB"), struct.Struct(">II")
NOT_A_FULL_STREAM = "these are not the device states of a QEMU machine, or only a part of them"


class Section(NamedTuple):
    """One saved object. `body` is everything between header and footer; `offset` is where it starts, in
    bytes.
    """

    name: str
    section_id: int
    instance_id: int
    version_id: int
    offset: int
    body: bytes


class _Header(NamedTuple):
    name: str
    section_id: int
    instance_id: int
    version_id: int
    end: int


class _Boundary(NamedTuple):
    """What looks like a footer at byte `at`, and the header behind it; None: the stream ends there."""

    at: int
    following: _Header | None


def _header_at(data: bytes, at: int) -> _Header | None:
    """The section header at byte `at`, or None when there is none."""
    if at + 6 > len(data) or data[at] != SECTION_FULL:
        return None
    section_id, length = _ID_AND_LENGTH.unpack_from(data, at + 1)
    end = at + 6 + length + 8
    name = data[at + 6 : at + 6 + length]
    if not length or end > len(data) or not name.isascii():
        return None
    text = name.decode("ascii")
    instance_id, version_id = _INSTANCE_AND_VERSION.unpack_from(data, end - 8)
    return _Header(text, section_id, instance_id, version_id, end) if text.isprintable() else None


def _find_boundaries(data: bytes) -> dict[int, list[_Boundary]]:
    """Every place that could end a section, by section id.

    One pass over the stream, because searching it for each section would take most of a read's time.
    """
    found: dict[int, list[_Boundary]] = {}
    for match in _FOOTER.finditer(data):
        behind = match.start() + 5
        following = _header_at(data, behind)
        if following is not None or (behind == len(data) - 1 and data[behind] == END_OF_STREAM):
            found.setdefault(int.from_bytes(match[1], "big"), []).append(_Boundary(match.start(), following))
    return found


def _find_end(boundaries: dict[int, list[_Boundary]], header: _Header) -> _Boundary:
    """Where the body after `header` ends.

    :raise FormatError: no footer for this section, or more than one place could be it.
    """
    ends = [each for each in boundaries.get(header.section_id, ()) if each.at >= header.end]
    if len(ends) == 1:
        return ends[0]
    problem = "could end in more than one place" if ends else "has no end"
    raise FormatError(f"section {header.name!r} of QEMU's device state {problem}", header.end)


def for_each_section(data: bytes) -> Iterator[Section]:
    """The sections of a device-state stream, in its order.

    :raise FormatError: not such a stream, or it is truncated, damaged or ambiguous.
    """
    if data[:4] != MAGIC:
        raise FormatError(f"QEMU's device state does not start with 'QEVM': {NOT_A_FULL_STREAM}", 0)
    if data[4:8] != struct.pack(">I", STREAM_VERSION):
        raise FormatError(f"QEMU's device state has version {data[4:8].hex()}, expected {STREAM_VERSION}", 4)
    header, boundaries = _header_at(data, 8), _find_boundaries(data)
    if header is None and data[8:] != bytes([END_OF_STREAM]):
        raise FormatError(f"expected a section of QEMU's device state: {NOT_A_FULL_STREAM}", 8)
    seen: set[int] = set()
    while header is not None:
        if header.section_id in seen:
            raise FormatError(f"two sections of QEMU's device state have id {header.section_id}", header.end)
        seen.add(header.section_id)
        end = _find_end(boundaries, header)
        yield Section(*header, data[header.end : end.at])
        header = end.following


def _by_instance(sections: list[Section], name: str) -> dict[int, Section]:
    chosen = [section for section in sections if section.name == name]
    by_instance = {section.instance_id: section for section in chosen}
    if len(by_instance) != len(chosen):
        raise FormatError(f"two {name!r} sections of QEMU's device state have the same instance number")
    return by_instance


def _apic_bases(sections: list[Section], cpus: list[int]) -> dict[int, int]:
    """IA32_APIC_BASE by CPU index, empty where the machine has no local APIC.

    :raise FormatError: some CPUs have an `apic` section and some have not, as when a damaged header swallowed one.

    An `apic` section's instance is the initial APIC ID. QEMU numbers CPUs in ascending order of it
    (hw/i386/x86.c, x86_cpu_pre_plug: the index is the position in the sorted list of possible CPUs).
    """
    apics = _by_instance(sections, "apic")
    if not apics:
        return {}
    if len(apics) != len(cpus):
        raise FormatError(f"QEMU's device state has {len(cpus)} 'cpu' sections and {len(apics)} 'apic' sections")
    return {
        cpu: decode_apic_base(section.body, section.version_id, section.offset)
        for cpu, (_, section) in zip(cpus, sorted(apics.items()), strict=True)
    }


def decode_device_state(data: bytes) -> tuple[CpuState, ...]:
    """Every vCPU's state, in order of QEMU's CPU index (GDB's thread `n` is CPU index `n - 1`).

    :raise FormatError: the stream is damaged, or its `cpu` sections are not those of x86-64 that exogdb
    knows.
    """
    sections = list(for_each_section(data))
    cpus = _by_instance(sections, "cpu")
    common = _by_instance(sections, "cpu_common")
    if not cpus:
        raise FormatError("QEMU's device state has no 'cpu' section: not an x86 machine?")
    if sorted(cpus) != sorted(common):
        raise FormatError("QEMU's device state does not have one 'cpu_common' section for each 'cpu' section")
    apic_bases = _apic_bases(sections, sorted(cpus))
    states = []
    for index, section in sorted(cpus.items()):
        twin = common[index]
        halted = decode_halted(twin.body, twin.version_id, twin.offset)
        states.append(
            decode_cpu(section.body, section.version_id, index, halted, apic_bases.get(index), section.offset)
        )
    return tuple(states)
