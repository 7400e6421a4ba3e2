"""IA32_STAR drawn: what each selector hits in the live GDT, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exogdb.view.gdt import describe_descriptor
from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table
from exogdb.view.value import TOUCHED, hex64
from exogdb.x86.gdt import Gdt
from exogdb.x86.star import Star, StarLoad

__all__ = ["StarReport", "render_star", "star_to_json"]


@dataclass(frozen=True)
class StarReport:
    """IA32_STAR of one CPU with where the value is from, the CPU's GDT, and findings in sentences."""

    cpu: int
    star: Star
    source: str
    gdt: Gdt
    findings: Sequence[str]


def _drawing(star: Star) -> list[str]:
    sysret, syscall = star.value >> 48 & 0xFFFF, star.value >> 32 & 0xFFFF
    return [
        "   63          48 47          32 31                  0",
        "  +--------------+--------------+---------------------+",
        f"  |    {sysret:#06x}    |    {syscall:#06x}    |     {star.legacy_eip:#010x}      |",
        "  +--------------+--------------+---------------------+",
        "   SYSRET: +16    SYSCALL: CS    SYSCALL target in",
        "   CS64, +8 SS,   & ~3, SS +8    legacy mode (AMD)",
        "   CS32 as is; RPL becomes 3 (on AMD only in CS)",
    ]


def _hit(report: StarReport, load: StarLoad) -> str:
    descriptor = report.gdt.find_descriptor(load.selector)
    if descriptor is None:
        return "no descriptor in the GDT" if not load.selector.in_ldt else "the LDT"
    return describe_descriptor(descriptor)


def render_star(report: StarReport, style: Style) -> str:
    """The bit fields, one line for each selector that SYSCALL and SYSRET load, and the findings."""
    head = f"CPU {report.cpu}  IA32_STAR {report.star.value:#018x}  ({report.source})"
    rows = [
        [Cell(load.instruction), Cell(load.register), Cell(str(load.selector), "name"), Cell(_hit(report, load))]
        for load in report.star.loads
    ]
    table = render_table(("", "", "selector", "GDT entry"), rows, style, {3: 20})
    findings = [render_sentence(f"! {text}", style, "warning") for text in report.findings] or [
        "Every selector hits what it needs."
    ]
    touched = [render_sentence(TOUCHED, style, "warning")] if report.source == "rdmsr" else []
    return "\n".join([style.paint("heading", head), *_drawing(report.star), table, *findings, *touched])


def star_to_json(report: StarReport) -> dict[str, Any]:
    """`{"cpu", "value", "source", "loads": [{"instruction", "register", "selector", "hits"}], "findings"}`."""
    return {
        "cpu": report.cpu,
        "value": hex64(report.star.value),
        "source": report.source,
        "loads": [
            {
                "instruction": load.instruction,
                "register": load.register,
                "selector": hex64(load.selector.value),
                "hits": _hit(report, load),
            }
            for load in report.star.loads
        ],
        "findings": list(report.findings),
    }
