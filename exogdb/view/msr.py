"""MSRs as a table that says what each value means, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from exogdb.reading import Reading, Unavailable, Value
from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table
from exogdb.view.value import TOUCHED, hex64, render_value, value_to_json
from exogdb.x86.address import is_canonical
from exogdb.x86.apic_base import ApicBase
from exogdb.x86.msr import MsrSpec, check_msr, decode_msr
from exogdb.x86.rflags import Fmask
from exogdb.x86.star import Star
from exogdb.x86.sysenter import SysenterCs

__all__ = ["MsrReport", "check_value", "msrs_to_json", "render_msrs"]

ZERO = "Where 0 was read there may be no such MSR: QEMU without KVM answers 0 for those that it does not know."
LEAST_MEANING_WIDTH = 30
_CPU_COLUMN = 20  # an address and the gap behind it
_BESIDE_CPUS = 33  # the longest name, the mark, the sources and their gaps
_BESIDE_MEANING = 32  # value, source and all gaps; the names come on top


@dataclass(frozen=True)
class MsrReport:
    """Values by CPU index and MSR name; `symbols` names addresses, `specs` gives the order of the rows.

    `address_bits` is how many bits of a linear address the CPUs translate: 48, or 57 with CR4.LA57.
    """

    specs: Sequence[MsrSpec]
    values: Mapping[int, Mapping[str, Value]]
    symbols: Mapping[int, str]
    address_bits: int = 48

    @property
    def is_touched(self) -> bool:
        """Whether any value came from executing RDMSR in the guest."""
        values = (value for row in self.values.values() for value in row.values())
        return any(isinstance(value, Reading) and value.source == "rdmsr" for value in values)


def check_value(spec: MsrSpec, value: int, address_bits: int = 48) -> tuple[str, ...]:
    """What is wrong with `value` in this MSR by itself, one sentence each."""
    if spec.holds == "address" and not is_canonical(value, address_bits):
        return (f"not a canonical address: bits 63:{address_bits - 1} are not all the same",)
    return check_msr(spec, value)


def _explain_star(star: Star) -> list[str]:
    ss = f"SS {star.sysret_ss.value:#04x}"
    if star.sysret_ss_amd != star.sysret_ss:
        ss += f" (AMD: {star.sysret_ss_amd.value:#04x})"
    return [
        f"SYSCALL loads CS {star.syscall_cs.value:#04x}, SS {star.syscall_ss.value:#04x}",
        f"SYSRETQ (to 64-bit) loads CS {star.sysret64_cs.value:#04x}, {ss}",
        f"SYSRETL (to 32-bit) loads CS {star.sysret32_cs.value:#04x}, {ss}",
    ]


def _explain_sysenter(cs: SysenterCs) -> list[str]:
    if not cs.enabled:
        return ["null: SYSENTER raises #GP"]
    return [
        f"SYSENTER loads CS {cs.sysenter_cs.value:#04x}, SS {cs.sysenter_ss.value:#04x}",
        f"SYSEXIT to 64-bit loads CS {cs.sysexit64_cs.value:#04x}, SS {cs.sysexit64_ss.value:#04x}",
        f"SYSEXIT to 32-bit loads CS {cs.sysexit32_cs.value:#04x}, SS {cs.sysexit32_ss.value:#04x}",
    ]


def _explain(spec: MsrSpec, value: int, symbols: Mapping[int, str]) -> list[str]:
    """The meaning of a value in a few short lines."""
    decoded = decode_msr(spec, value)
    if isinstance(decoded, Star):
        return _explain_star(decoded)
    if isinstance(decoded, SysenterCs):
        return _explain_sysenter(decoded)
    if isinstance(decoded, Fmask):
        return ["SYSCALL clears " + (" ".join(decoded.clears) or "nothing")]
    if isinstance(decoded, ApicBase):
        return [f"{decoded.mode} at physical {decoded.address:#x} {' '.join(decoded.flags)}"]
    if isinstance(decoded, tuple):
        numbered = [f"PA{n}={name}" for n, name in enumerate(decoded)] if spec.holds == "memory types" else decoded
        return [" ".join(numbered) or "no bit set"]
    if spec.holds == "address" and value in symbols:
        return [symbols[value]]
    return [spec.meaning] if value or spec.holds != "address" else [f"not set: {spec.meaning}"]


def _meaning(spec: MsrSpec, value: Value, report: MsrReport, style: Style, width: int) -> str:
    if isinstance(value, Unavailable):
        return "\n".join(_broken(value.reason, width))
    lines = [line for text in _explain(spec, value.value, report.symbols) for line in _broken(text, width)]
    if value.value in report.symbols:
        lines[0] = style.paint("symbol", lines[0])
    for finding in check_value(spec, value.value, report.address_bits):
        lines += [style.paint("warning", line) for line in _broken(f"! {finding}", width)]
    return "\n".join(lines)


def _broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, 0 for unlimited."""
    return wrap(text, width or 10_000, break_on_hyphens=False)


def _render_one(report: MsrReport, cpu: int, style: Style) -> str:
    from tabulate import tabulate

    names = max(len("MSR") + 2, *(len(spec.short) for spec in report.specs))
    width = max(style.width - names - _BESIDE_MEANING, LEAST_MEANING_WIDTH) if style.width else 0
    rows = []
    for spec in report.specs:
        value = report.values[cpu][spec.name]
        known = isinstance(value, Reading)
        text, source = (render_value(value), value.source) if isinstance(value, Reading) else ("unavailable", "-")
        meaning = _meaning(spec, value, report, style, width)
        rows.append(
            (style.paint("name", spec.short), text if known else style.paint("bad", text), source, meaning)
        )
    table = tabulate(rows, ("MSR", "value", "source", "meaning"), tablefmt="plain", disable_numparse=True)
    return f"{style.paint('heading', f'CPU {cpu}')}\n{table}"


def _cell(value: Value, differs: bool) -> Cell:
    text = "unavailable" if isinstance(value, Unavailable) else f"{value.value:#018x}"
    return Cell(text, "warning" if differs else "")


def _row(report: MsrReport, spec: MsrSpec, cpus: Sequence[int]) -> list[Cell]:
    """`cpus` of one MSR; the mark and the sources are those of all CPUs."""
    values = {cpu: row[spec.name] for cpu, row in report.values.items()}
    differs = len({value.value if isinstance(value, Reading) else None for value in values.values()}) > 1
    sources = sorted({value.source if isinstance(value, Reading) else "-" for value in values.values()})
    cells = [_cell(values[cpu], differs) for cpu in cpus]
    mark = Cell("!=" if differs else "", "warning")
    return [Cell(spec.short, "name"), mark, *cells, Cell("/".join(sources))]


def _render_side_by_side(report: MsrReport, style: Style) -> str:
    """As many CPUs beside each other as fit the terminal, the others below."""
    cpus = sorted(report.values)
    beside = max((style.width - _BESIDE_CPUS) // _CPU_COLUMN, 1) if style.width else len(cpus)
    tables, differs = [], False
    for start in range(0, len(cpus), beside):
        shown = cpus[start : start + beside]
        rows = [_row(report, spec, shown) for spec in report.specs]
        differs = differs or any(row[1].text for row in rows)
        tables.append(render_table(("MSR", "", *(f"CPU {cpu}" for cpu in shown), "source"), rows, style))
    marks = ["!= differs between CPUs"] if differs else []
    return "\n".join(["\n\n".join(tables), *marks, *_findings(report, style), *_reasons(report, style)])


def _findings(report: MsrReport, style: Style) -> list[str]:
    """What is wrong with values, each sentence once, with the CPUs it is about unless it is all of them."""
    found: dict[tuple[str, str], list[str]] = {}
    for spec in report.specs:
        for cpu, values in sorted(report.values.items()):
            value = values[spec.name]
            if isinstance(value, Reading):
                for finding in check_value(spec, value.value, report.address_bits):
                    found.setdefault((spec.short, finding), []).append(f"CPU {cpu}")
    return [
        render_sentence(
            f"! {name}{'' if len(cpus) == len(report.values) else ' of ' + ', '.join(cpus)}: {finding}",
            style,
            "warning",
        )
        for (name, finding), cpus in found.items()
    ]


def _reasons(report: MsrReport, style: Style) -> list[str]:
    """Why values are unavailable, each reason once."""
    reasons: dict[str, list[str]] = {}
    for cpu, values in sorted(report.values.items()):
        for name, value in values.items():
            if isinstance(value, Unavailable):
                reasons.setdefault(value.reason, []).append(f"CPU {cpu} {name}")
    sentences = (f"unavailable ({reason}): {', '.join(where)}" for reason, where in reasons.items())
    return [render_sentence(sentence, style) for sentence in sentences]


def render_msrs(report: MsrReport, style: Style) -> str:
    """One CPU with the meaning of every value; several CPUs side by side with differences marked."""
    if len(report.values) == 1:
        text = _render_one(report, next(iter(report.values)), style)
    else:
        text = _render_side_by_side(report, style)
    return f"{text}\n{render_sentence(_remark(report), style, 'warning')}" if report.is_touched else text


def _remark(report: MsrReport) -> str:
    """What executing RDMSR did to the guest, and what its answers do not prove."""
    values = (value for row in report.values.values() for value in row.values())
    zeros = [
        value for value in values if isinstance(value, Reading) and (value.source, value.value) == ("rdmsr", 0)
    ]
    return f"{TOUCHED} {ZERO}" if zeros else TOUCHED


def _decoded_to_json(spec: MsrSpec, value: int, report: MsrReport) -> dict[str, Any]:
    decoded = decode_msr(spec, value)
    findings = list(check_value(spec, value, report.address_bits))
    if isinstance(decoded, Star | SysenterCs):
        fields = {name: part for name, part in vars(decoded).items() if name != "value"}
        found: dict[str, Any] = {
            name: part if isinstance(part, bool) else hex64(getattr(part, "value", part))
            for name, part in fields.items()
        }
    elif isinstance(decoded, Fmask):
        found = {"clears": list(decoded.clears), "dangerous": list(decoded.dangerous)}
    elif isinstance(decoded, ApicBase):
        found = {"address": hex64(decoded.address), "flags": list(decoded.flags), "mode": decoded.mode}
    elif isinstance(decoded, tuple):
        found = {"types" if spec.holds == "memory types" else "flags": list(decoded)}
    else:
        named = spec.holds == "address" and value in report.symbols
        found = {"symbol": report.symbols[value]} if named else {}
    return found | {"findings": findings} if findings else found


def _entry_to_json(spec: MsrSpec, value: Value, report: MsrReport) -> dict[str, Any]:
    entry: dict[str, Any] = dict(value_to_json(value))
    if isinstance(value, Reading):
        entry["decoded"] = _decoded_to_json(spec, value.value, report)
    return entry


def msrs_to_json(report: MsrReport) -> dict[str, Any]:
    """`{"cpus": [{"cpu": 0, "msrs": {"IA32_STAR": {"value", "source", "decoded"}}}]}`."""
    return {
        "cpus": [
            {
                "cpu": cpu,
                "msrs": {spec.name: _entry_to_json(spec, values[spec.name], report) for spec in report.specs},
            }
            for cpu, values in sorted(report.values.items())
        ]
    }
