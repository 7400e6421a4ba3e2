"""The IDT as a table: vector, gate, stack, handler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table
from exogdb.view.value import hex64
from exogdb.x86.idt import Gate

__all__ = ["IdtReport", "idt_to_json", "render_idt"]


@dataclass(frozen=True)
class IdtReport:
    """The gates to show of one CPU's IDT; `absent` more have P = 0. `findings` is by vector."""

    cpu: int
    base: int
    limit: int
    gates: Sequence[Gate]
    absent: int
    symbols: Mapping[int, str]
    findings: Mapping[int, tuple[str, ...]]


def _row(report: IdtReport, gate: Gate) -> list[Cell]:
    stack = f"IST{gate.ist}" if gate.ist else "-"
    kind = gate.kind if gate.present else "not present"
    place = (f"{gate.selector.value:#04x}", f"{gate.handler:#018x}")
    plain = [Cell(text) for text in (kind, str(gate.dpl), stack, *place)]
    symbol = Cell(report.symbols.get(gate.handler, ""), "symbol")
    name = gate.name if gate.vector < 32 else ""  # beyond, the number is the name
    return [Cell(f"{gate.vector:#04x}"), Cell(name, "name"), *plain, symbol]


def render_idt(report: IdtReport, style: Style) -> str:
    """One line for each gate; an interrupt gate clears IF, a trap gate does not. Then what is wrong with them."""
    headings = ("", "vector", "gate", "DPL", "stack", "CS", "handler", "symbol")
    head = f"CPU {report.cpu}  IDT at {report.base:#x}, limit {report.limit:#x}"
    rows = [_row(report, gate) for gate in report.gates]
    lines = [style.paint("heading", head), render_table(headings, rows, style, {7: 12})]
    if report.absent:
        lines.append(f"{report.absent} more gates are not present")
    for gate in report.gates:
        for text in report.findings.get(gate.vector, ()):
            lines.append(render_sentence(f"! {gate.vector:#04x} {gate.name}: {text}", style, "warning"))
    return "\n".join(lines)


def _gate_to_json(report: IdtReport, gate: Gate) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "vector": gate.vector,
        "name": gate.name,
        "present": gate.present,
        "kind": gate.kind,
        "dpl": gate.dpl,
        "ist": gate.ist,
        "selector": hex64(gate.selector.value),
        "handler": hex64(gate.handler),
        "symbol": report.symbols.get(gate.handler, ""),
    }
    findings = report.findings.get(gate.vector)
    return fields | ({"findings": list(findings)} if findings else {})


def idt_to_json(report: IdtReport) -> dict[str, Any]:
    """`{"cpu", "base", "limit", "absent", "gates": [{"vector", "name", "kind", "dpl", "ist", "handler",
    "symbol"}]}`.
    """
    return {
        "cpu": report.cpu,
        "base": hex64(report.base),
        "limit": hex64(report.limit),
        "absent": report.absent,
        "gates": [_gate_to_json(report, gate) for gate in report.gates],
    }
