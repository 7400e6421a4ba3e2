"""An MSR before and after it was written."""

from dataclasses import dataclass
from typing import Any

from exogdb.reading import Unavailable, Value
from exogdb.view.style import Style
from exogdb.view.value import hex64, render_value, value_to_json
from exogdb.x86.msr import MsrSpec

__all__ = ["MsrChange", "change_to_json", "render_change"]


@dataclass(frozen=True)
class MsrChange:
    """`written` is what WRMSR was given; `after` is what RDMSR said then."""

    spec: MsrSpec
    cpu: int
    written: int
    before: Value
    after: Value

    @property
    def is_kept(self) -> bool:
        """The CPU holds exactly what was written, or cannot be asked."""
        return isinstance(self.after, Unavailable) or self.after.value == self.written


def render_change(change: MsrChange, style: Style) -> str:
    """Before, written and after, and a warning when the CPU kept something else."""
    lines = [
        f"CPU {change.cpu} {style.paint('name', change.spec.name)}",
        f"  before  {render_value(change.before)}",
        f"  written {change.written:#018x}",
        f"  after   {render_value(change.after)}",
    ]
    if not change.is_kept:
        lines.append(
            style.paint("warning", "The CPU does not hold what was written: some bits are fixed or reserved.")
        )
    return "\n".join(lines)


def change_to_json(change: MsrChange) -> dict[str, Any]:
    """`{"cpu", "msr", "before", "written", "after"}`."""
    return {
        "cpu": change.cpu,
        "msr": change.spec.name,
        "before": value_to_json(change.before),
        "written": hex64(change.written),
        "after": value_to_json(change.after),
    }
