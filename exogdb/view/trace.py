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
from exogdb.trace.pairing import Notice, NoticeKind
from exogdb.view.style import Style

__all__ = ["CallDescription", "TraceLines", "format_latency", "format_ns", "render_notice"]


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
    """How lines are laid out. `origin_ns` is the clock at the start of the trace."""

    describe: CallDescription
    style: Style
    shows_time: bool = False
    origin_ns: int = 0
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


def format_ns(nanoseconds: int) -> str:
    """A duration with three significant digits and its unit.

    >>> format_ns(870), format_ns(12_345), format_ns(2_500_000_000)
    ('870 ns', '12.3 us', '2.50 s')
    """
    value, unit = float(nanoseconds), "ns"
    for larger in ("us", "ms", "s"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    if unit == "ns":
        return f"{nanoseconds} ns"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"


def format_latency(nanoseconds: int) -> str:
    """The same, but `short` for 0, which is no measurement (`exogdb.trace.summary`).

    >>> format_latency(0), format_latency(870)
    ('short', '870 ns')
    """
    return format_ns(nanoseconds) if nanoseconds else "short"


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
    latency = call.latency_ns
    took = (
        ""
        if latency is None or notice.kind is NoticeKind.UNFINISHED
        else f" <{latency / 1e9:.6f}>"
        if latency
        else " <short>"
    )
    return f"{_stamp(moment, lines)}{text}{took}"


def _stamp(moment_ns: int | None, lines: TraceLines) -> str:
    return "?" * 10 + " " if moment_ns is None else f"{(moment_ns - lines.origin_ns) / 1e9:10.6f} "
