"""The one line that says which system call the guest stopped at."""

from collections.abc import Sequence
from dataclasses import dataclass

from exogdb.abi.argument import ArgumentText
from exogdb.view.style import Style

__all__ = ["HitReport", "render_arguments", "render_hit"]


@dataclass(frozen=True)
class HitReport:
    """A system call at a stop. `process` is empty where the kernel does not tell; `result` is text or empty.

    `other` is the number that was called, if the kernel takes it for `number`; empty otherwise.
    """

    number: int
    name: str
    arguments: Sequence[ArgumentText]
    cpu: int
    process: str
    result: str
    other: str = ""


def render_hit(report: HitReport, style: Style) -> str:
    """`101 ipc_send(channel=64, message=0x7ffe "hello", length=12) by process 3 on CPU 0`.

    >>> call = HitReport(4, "getpid", [], 1, "3", "")
    >>> render_hit(call, Style(colour=False))
    'System call 4 getpid() by process 3 on CPU 1'
    """
    arguments = render_arguments(report.arguments)
    name = "" if report.name == str(report.number) else style.paint("name", report.name)
    by = f" by process {report.process}" if report.process else ""
    result = f" = {report.result}" if report.result else ""
    other = f"; its number is {report.other}, which the kernel takes for this one" if report.other else ""
    return f"System call {report.number} {name}({arguments}){result}{by} on CPU {report.cpu}{other}"


def render_arguments(arguments: Sequence[ArgumentText]) -> str:
    """What stands between the brackets.

    >>> render_arguments([ArgumentText("channel", "64"), ArgumentText("message", "0x7ffe", '"hello"')])
    'channel=64, message=0x7ffe "hello"'
    """
    return ", ".join(map(_render_argument, arguments))


def _render_argument(argument: ArgumentText) -> str:
    text = f" {argument.text}" if argument.text else ""
    return f"{argument.name}={argument.value}{text}"
