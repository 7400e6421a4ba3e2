"""A trace as strace writes it: one line a call, in the order in which the calls end.

::

     0 P1 ping  ipc_send(channel=3, data=0x400010, len=5) = 5
     0 P2 pong  ipc_recv(channel=3, buf=0x7ff0, len=64) <unfinished ...>
     1 P3 init  <new process, child of P1>
     1 P3 init  getpid() = 1
     1 P2 pong  <... ipc_recv resumed> = 5
     0 P1 ping  exit(status=0) = ?

A process says whose child it is before its first line, if that is known. A call is unfinished when its CPU goes on
with something else before it has returned. `?` stands for a result that will never come.
"""

from dataclasses import dataclass, field
from typing import Protocol

from exogdb.trace.call import Call, CallState, Parent
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.unit import Unit
from exogdb.view.style import Style

__all__ = ["CallDescription", "TraceLines", "render_notice"]


class CallDescription(Protocol):
    """Turns the numbers in a call into words."""

    def name(self, number: int | None) -> str:
        """The system call's name, or its number where it has none."""
        ...

    def arguments(self, call: Call) -> list[str]:
        """Its arguments, each as `name=value`."""
        ...

    def outputs(self, call: Call) -> list[str]:
        """What it wrote into the caller's memory, each as `name=value`."""
        ...

    def result(self, call: Call) -> str:
        """What it returned, with errors by name where they have one."""
        ...

    def program(self, call: Call) -> str:
        """The program that made the call, empty if unknown."""
        ...

    def stack(self, call: Call) -> list[str]:
        """The caller's backtrace, one line a frame; empty if it was not asked for."""
        ...


@dataclass
class TraceLines:
    """How lines are laid out. `origin_ns` is where the clock, which counts in `unit`, was at the trace's start."""

    describe: CallDescription
    style: Style
    shows_time: bool = False
    origin_ns: int = 0
    unit: Unit = Unit.NANOSECONDS
    _introduced: set[int] = field(default_factory=set)

    def render(self, notice: Notice) -> str:
        """The line (or lines, with a backtrace) for one notice, without the last newline."""
        text = render_notice(notice, self)
        call = notice.call
        if call.parent is None or call.process in self._introduced:
            return text
        self._introduced.add(call.process)
        return f"{_render_parent(call, call.parent, self)}\n{text}"


def render_notice(notice: Notice, lines: TraceLines) -> str:
    """One notice as text."""
    call, describe, style = notice.call, lines.describe, lines.style
    is_resumed = notice.kind is NoticeKind.RESUMED
    name = style.paint("name", describe.name(call.number))
    arguments = "" if is_resumed else ", ".join(describe.arguments(call))
    text = _render_resumed(call, name, describe) if is_resumed else f"{name}({arguments})"
    if notice.kind is NoticeKind.UNFINISHED:
        text += style.paint("faint", " <unfinished ...>")
    else:
        text += " = " + _render_result(call, describe, style)
    if lines.shows_time:
        text = _add_time(text, notice, lines)
    first = f"{_render_origin(call, describe, is_resumed)}  {text}"
    frames = [] if is_resumed else describe.stack(call)
    return "\n".join([first, *(f"      {frame}" for frame in frames)])


def _render_parent(call: Call, parent: Parent, lines: TraceLines) -> str:
    doubt = " (guess: it was not seen starting)" if parent.is_guess else ""
    words = lines.style.paint("faint", f"<new process, child of P{parent.process}{doubt}>")
    stamp = _stamp(call.entry_ns, lines) if lines.shows_time else ""
    return f"{_render_origin(call, lines.describe, is_resumed=False)}  {stamp}{words}"


def _render_origin(call: Call, describe: CallDescription, is_resumed: bool) -> str:
    cpu = call.return_cpu if is_resumed and call.return_cpu is not None else call.cpu
    number = "?" if cpu is None else str(cpu)
    program = describe.program(call)
    return f"{number:>2} P{call.process}" + (f" {program}" if program else "")


def _render_resumed(call: Call, name: str, describe: CallDescription) -> str:
    match call.state:
        case CallState.ENTERED_BEFORE:
            return "<... a call entered before the trace>"
        case CallState.STARTED_BY_FORK:
            return f"<... {name} resumed in the new process>"
        case _:
            return " ".join([f"<... {name} resumed>", *describe.outputs(call)])


def _render_result(call: Call, describe: CallDescription, style: Style) -> str:
    if call.state is CallState.NEVER_RETURNED:
        return "?"
    text = describe.result(call)
    if call.is_ambiguous:
        text += " (guess: it may be another call's)"
    return style.paint("bad", text) if call.failed else text


def _add_time(text: str, notice: Notice, lines: TraceLines) -> str:
    call = notice.call
    moment = call.exit_ns if notice.kind is NoticeKind.RESUMED else call.entry_ns
    latency = None if notice.kind is NoticeKind.UNFINISHED else call.latency_ns
    took = "" if latency is None else f" <{_exactly(latency, lines.unit)}>" if latency else " <short>"
    return f"{_stamp(moment, lines)}{text}{took}"


def _stamp(moment: int | None, lines: TraceLines) -> str:
    return "?" * 10 + " " if moment is None else f"{_exactly(moment - lines.origin_ns, lines.unit):>10} "


def _exactly(amount: int, unit: Unit) -> str:
    """Seconds, or instructions."""
    return f"{amount / 1e9:.6f}" if unit is Unit.NANOSECONDS else str(amount)
