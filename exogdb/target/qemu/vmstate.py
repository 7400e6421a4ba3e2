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
from dataclasses import dataclass

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
NOT_A_FULL_STREAM = "these are not the device states of a QEMU machine, or only a part of them"


@dataclass(frozen=True)
class Section:
    """One saved object. `body` is everything between header and footer; `offset` is where it starts, in
    bytes.
    """

    name: str
    section_id: int
    instance_id: int
    version_id: int
    offset: int
    body: bytes


@dataclass(frozen=True)
class _Header:
    name: str
    section_id: int
    instance_id: int
    version_id: int
    end: int


def _header_at(data: bytes, at: int) -> _Header | None:
    """The section header at byte `at`, or None when there is none."""
    if at + 6 > len(data) or data[at] != SECTION_FULL:
        return None
    section_id, length = struct.unpack_from(">IB", data, at + 1)
    end = at + 6 + length + 8
    name = data[at + 6 : at + 6 + length]
    if not length or end > len(data) or not (name.isascii() and name.decode("ascii", "replace").isprintable()):
        return None
    instance_id, version_id = struct.unpack_from(">II", data, end - 8)
    return _Header(name.decode("ascii"), section_id, instance_id, version_id, end)


def _find_footers(data: bytes) -> dict[int, list[int]]:
    """Every place that could end a section, by section id: a footer with a header or the end of the
    stream behind it.

    One pass over the stream, because searching it for each section would take most of a read's time.
    """
    found: dict[int, list[int]] = {}
    for match in _FOOTER.finditer(data):
        following = match.start() + 5
        last = following == len(data) - 1 and data[following] == END_OF_STREAM
        if last or _header_at(data, following) is not None:
            found.setdefault(int.from_bytes(match[1], "big"), []).append(match.start())
    return found


def _body_end(footers: dict[int, list[int]], header: _Header) -> int:
    """Where the body after `header` ends.

    :raise FormatError: no footer for this section, or more than one place could be it.
    """
    ends = [at for at in footers.get(header.section_id, []) if at >= header.end]
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
    at, footers = 8, _find_footers(data)
    seen: set[int] = set()
    while at != len(data) - 1 or data[at] != END_OF_STREAM:
        header = _header_at(data, at)
        if header is None:
            raise FormatError(f"expected a section of QEMU's device state: {NOT_A_FULL_STREAM}", at)
        if header.section_id in seen:
            raise FormatError(f"two sections of QEMU's device state have id {header.section_id}", at)
        seen.add(header.section_id)
        end = _body_end(footers, header)
        yield Section(
            header.name,
            header.section_id,
            header.instance_id,
            header.version_id,
            header.end,
            data[header.end : end],
        )
        at = end + 5


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
