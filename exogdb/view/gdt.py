"""The GDT as a table: what each selector hits, and which segment registers hold it now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exogdb.view.style import Style
from exogdb.view.table import KEPT_BLANK, Cell, render_table
from exogdb.view.value import hex64
from exogdb.x86.descriptor import (
    CallGate,
    CodeDescriptor,
    DataDescriptor,
    Descriptor,
    NullDescriptor,
    SystemDescriptor,
)
from exogdb.x86.gdt import Gdt, GdtEntry

__all__ = ["GdtReport", "describe_descriptor", "gdt_to_json", "render_gdt"]


@dataclass(frozen=True)
class GdtReport:
    """The table of one CPU. `loaded` has the segment registers by byte offset; `star` what STAR's selectors do."""

    cpu: int
    gdt: Gdt
    loaded: Mapping[int, tuple[str, ...]]
    star: Mapping[int, tuple[str, ...]]


def describe_descriptor(descriptor: Descriptor) -> str:
    """Kind and attributes in a few words.

    >>> from exogdb.x86.descriptor import decode_descriptor
    >>> describe_descriptor(decode_descriptor(bytes.fromhex("ffff0000009baf00")))
    '64-bit code, DPL 0, readable, accessed'
    """
    if isinstance(descriptor, NullDescriptor):
        return f"null (holds {descriptor.raw:#x}, never read)" if descriptor.raw else "null"
    words = [descriptor.kind, f"DPL {descriptor.dpl}"]
    if not descriptor.present:
        words.append("not present")
    if isinstance(descriptor, CodeDescriptor):
        words += [name for name in ("readable", "conforming", "accessed") if getattr(descriptor, name)]
        words += ["L and D both set: reserved"] if descriptor.long and descriptor.default_32 else []
    elif isinstance(descriptor, DataDescriptor):
        words.append("writable" if descriptor.writable else "read-only")
        words += ["expand-down"] if descriptor.expand_down else []
        words += ["accessed"] if descriptor.accessed else []
    elif isinstance(descriptor, CallGate):
        words.append(f"to {descriptor.selector.value:#04x}:{descriptor.offset:#x}")
    return ", ".join(words)


def _extent(descriptor: Descriptor) -> tuple[str, str]:
    """Base and limit; empty where there are none (null, call gate) or the CPU ignores both (64-bit code)."""
    if isinstance(descriptor, NullDescriptor | CallGate):
        return "", ""
    if isinstance(descriptor, CodeDescriptor) and descriptor.long:
        return "", ""
    return f"{descriptor.base:#x}", f"{descriptor.limit:#x}"


def _row(report: GdtReport, entry: GdtEntry) -> list[Cell]:
    uses = [*report.loaded.get(entry.selector.offset, ()), *report.star.get(entry.selector.offset, ())]
    description = describe_descriptor(entry.descriptor).replace("DPL ", f"DPL{KEPT_BLANK}")
    words = (description, *_extent(entry.descriptor), ", ".join(uses))
    return [Cell(f"{entry.selector.value:#04x}", "name"), *map(Cell, words)]


def _shown(report: GdtReport) -> list[GdtEntry]:
    """The entries that a screen needs: null descriptors only where something uses them, and the first one."""
    return [
        entry
        for index, entry in enumerate(report.gdt.entries)
        if index == 0
        or not isinstance(entry.descriptor, NullDescriptor)
        or entry.selector.offset in report.loaded
        or entry.selector.offset in report.star
    ]


def render_gdt(report: GdtReport, style: Style) -> str:
    """One line for each descriptor that is not null.

    In 64-bit mode the CPU ignores base and limit, except of FS, GS, TSS and LDT.
    """
    rows = [_row(report, entry) for entry in _shown(report)]
    head = f"CPU {report.cpu}  GDT at {report.gdt.base:#x}, limit {report.gdt.limit:#x}"
    headings = ("selector", "descriptor", "base", "limit", "used by")
    table = render_table(headings, rows, style, {1: 20, 4: 12})
    empty = len(report.gdt.entries) - len(rows)
    rest = f"\n{empty} more descriptors are null" if empty else ""
    damage = f"\n{style.paint('warning', report.gdt.damage)}" if report.gdt.damage else ""
    return f"{style.paint('heading', head)}\n{table}{rest}{damage}"


def _entry_to_json(report: GdtReport, entry: GdtEntry) -> dict[str, Any]:
    descriptor = entry.descriptor
    fields: dict[str, Any] = {
        "selector": hex64(entry.selector.value),
        "address": hex64(entry.address),
        "raw": f"{descriptor.raw:#x}",
        "kind": descriptor.kind,
        "dpl": descriptor.dpl,
        "present": descriptor.present,
        "loaded": list(report.loaded.get(entry.selector.offset, ())),
        "star": list(report.star.get(entry.selector.offset, ())),
    }
    if isinstance(descriptor, CodeDescriptor | DataDescriptor | SystemDescriptor):
        fields |= {"base": hex64(descriptor.base), "limit": hex64(descriptor.limit)}
    elif isinstance(descriptor, CallGate):
        fields |= {"target_selector": hex64(descriptor.selector.value), "target": hex64(descriptor.offset)}
    return fields


def gdt_to_json(report: GdtReport) -> dict[str, Any]:
    """`{"cpu", "base", "limit", "entries": [{"selector", "kind", "dpl", "present", "loaded", "star", ...}]}`."""
    return {
        "cpu": report.cpu,
        "base": hex64(report.gdt.base),
        "limit": hex64(report.gdt.limit),
        "entries": [_entry_to_json(report, entry) for entry in report.gdt.entries],
    } | ({"damage": report.gdt.damage} if report.gdt.damage else {})
