"""Both GS bases: whose is which, is the right one active, and the per-CPU block behind the kernel's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from exogdb.abi.gs import GsReport, GsState
from exogdb.abi.percpu import Aggregate, PerCpuBlock, PerCpuField
from exogdb.reading import Unavailable
from exogdb.view.style import Style
from exogdb.view.table import render_sentence, wrap_painted
from exogdb.view.value import hex64

__all__ = ["CpuGs", "gs_to_json", "render_gs"]


@dataclass(frozen=True)
class CpuGs:
    """One CPU. `names` has symbols by address; `ends` those of the byte below it, where one may end."""

    cpu: int
    cpl: int
    gs_base: int
    kernel_gs_base: int
    report: GsReport
    percpu: PerCpuBlock | Unavailable
    names: Mapping[int, str]
    ends: Mapping[int, str] = field(default_factory=dict)

    def name_of(self, held: PerCpuField, value: int) -> str:
        """What `value` in the block points to. No pointer by its type, it may as well be the top of a stack."""
        known = [self.names.get(value, "")]
        if "*" not in held.type:
            known.append(self.ends.get(value, ""))
        return ", or ".join(filter(None, known))


def _owner(row: CpuGs, *, is_active: bool) -> str:
    """Whose the active or the waiting base is."""
    if row.report.active == "unknown":
        return "owner unknown"
    return "the kernel's" if is_active == (row.report.active == "kernel") else "the user's"


def _base_line(row: CpuGs, *, is_active: bool, style: Style) -> str:
    label, name, base = ("active", "GS_BASE", row.gs_base)
    if not is_active:
        label, name, base = ("waiting", "KERNEL_GS_BASE", row.kernel_gs_base)
    symbol = f"  {style.paint('symbol', row.names[base])}" if base in row.names else ""
    owner = _owner(row, is_active=is_active)
    return f"  {label:<8} {style.paint('name', f'{name:<15}')} {base:#018x}  {owner}{symbol}"


def _state_line(row: CpuGs, style: Style) -> str:
    role = "bad" if row.report.is_wrong else "warning" if row.report.state is GsState.UNKNOWN else "good"
    return f"CPU {row.cpu}  CPL {row.cpl}  {style.paint(role, row.report.state.value)}"


def _field_line(field: PerCpuField, row: CpuGs, widths: tuple[int, int], style: Style) -> str:
    """`widths` are those of the offset, its `0x` included, and of the name."""
    if isinstance(field.value, Unavailable):
        shown = style.paint("faint", f"unavailable ({field.value.reason})")
    elif isinstance(field.value, Aggregate):
        shown = style.paint("faint", f"{field.type}, {field.size} bytes at {field.value.address:#x}")
    else:
        shown = f"{field.value.value:#0{2 + 2 * field.size}x}"
        symbol = row.name_of(field, field.value.value)
        shown += f"  {style.paint('symbol', symbol)}" if symbol else ""
    head = f"    +{field.offset:#0{widths[0]}x}  {field.name:<{widths[1]}}  "
    return wrap_painted(head + shown, style, " " * len(head))


def _percpu_lines(row: CpuGs, style: Style) -> list[str]:
    if isinstance(row.percpu, Unavailable):
        return [render_sentence(f"  per-CPU block: unavailable ({row.percpu.reason})", style)]
    widths = (
        max((len(f"{field.offset:#05x}") for field in row.percpu.fields), default=0),
        max((len(field.name) for field in row.percpu.fields), default=0),
    )
    head = wrap_painted(f"  per-CPU block at {row.percpu.address:#x}, by {row.percpu.known_by}", style, "    ")
    return [head, *(_field_line(field, row, widths, style) for field in row.percpu.fields)]


def _render_cpu(row: CpuGs, style: Style) -> str:
    lines = [
        _state_line(row, style),
        *(f"  {line}" for line in wrap(row.report.why, style.width - 2 if style.width else 10_000)),
        _base_line(row, is_active=True, style=style),
        _base_line(row, is_active=False, style=style),
        *_percpu_lines(row, style),
    ]
    return "\n".join(lines)


def render_gs(rows: Sequence[CpuGs], style: Style) -> str:
    """Every CPU with the oracle's answer, why, both bases and the per-CPU block."""
    return "\n\n".join(_render_cpu(row, style) for row in rows)


def _base_to_json(base: int | None, why: str) -> Any:
    return {"unavailable": why} if base is None else hex64(base)


def _percpu_to_json(block: PerCpuBlock | Unavailable) -> dict[str, Any]:
    if isinstance(block, Unavailable):
        return {"unavailable": block.reason}
    return {field.name: _field_to_json(field) for field in block.fields}


def _field_to_json(field: PerCpuField) -> Any:
    if isinstance(field.value, Unavailable):
        return {"unavailable": field.value.reason}
    if isinstance(field.value, Aggregate):
        return {"type": field.type, "size": field.size, "address": hex64(field.value.address)}
    return hex64(field.value.value)


def _to_json(row: CpuGs) -> dict[str, Any]:
    return {
        "cpu": row.cpu,
        "cpl": row.cpl,
        "gs_base": hex64(row.gs_base),
        "kernel_gs_base": hex64(row.kernel_gs_base),
        "state": row.report.state.value,
        "active": row.report.active,
        "expected": row.report.expected,
        "why": row.report.why,
        "kernel": _base_to_json(row.report.kernel, row.report.why),
        "user": _base_to_json(row.report.user, row.report.why),
        "percpu": _percpu_to_json(row.percpu),
        "percpu_known_by": "" if isinstance(row.percpu, Unavailable) else row.percpu.known_by,
    }


def gs_to_json(rows: Sequence[CpuGs]) -> dict[str, Any]:
    """`{"cpus": [{"cpu", "cpl", "gs_base", "kernel_gs_base", "state", "active", "kernel", "user", "percpu"}]}`."""
    return {"cpus": [_to_json(row) for row in rows]}
