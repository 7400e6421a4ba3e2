"""`exo-syscall summary`: how often each call is made, how often it fails, and how long it takes."""

from argparse import Namespace

import gdb

from exogdb.commands.candidates import complete_calls
from exogdb.commands.registry import Output, command
from exogdb.commands.tracing import (
    add_trace_arguments,
    make_sink,
    parse_trace_choice,
    render_end,
    render_start,
)
from exogdb.target.session import Session
from exogdb.target.trace.outlet import Outlet
from exogdb.target.trace.tracing import Tracing, prepare_tracing
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.outcome import Outcome
from exogdb.trace.summary import Summary
from exogdb.view.style import Style
from exogdb.view.summary import render_summary, summary_to_json

__all__: list[str] = []


@command(
    "exo-syscall summary",
    holds_ctrl_c=True,
    add_arguments=add_trace_arguments,
    complete={"CHOICE": complete_calls},
)
def exo_syscall_summary(session: Session, options: Namespace) -> Output:
    """Count calls and errors, measure latency, until Ctrl-C.

    Usage: exo-syscall summary [CHOICE] [--count N] [--for SECONDS]
                               [--engine auto|log|stops] [--clock host|guest]
                               [--json]
    Example: exo-syscall summary --for 5

    Like `strace -c`, with a histogram of the latencies. CHOICE is written as for
    `exo-syscall break`.

    --count N and --for SECONDS end it by themselves; --engine and --clock are
    those of `exo-syscall trace`.
    """
    tracing, found, outcome = _gather(session, options)

    def name_of(number: int | None) -> str:
        return "?" if number is None else tracing.numbers.name_of(number)

    def render(style: Style) -> str:
        entered = outcome.entries
        table = render_summary(found, name_of, tracing.clock, style, tracing.unit, entered=entered)
        return table + "\n\n" + render_end(outcome)

    return Output(
        render,
        lambda: (
            summary_to_json(found, name_of, tracing.clock, tracing.unit)
            | {"engine": tracing.engine_name, "doubts": list(tracing.path.doubts), "end": outcome.to_json()}
        ),
    )


def _gather(session: Session, options: Namespace) -> tuple[Tracing, Summary, Outcome]:
    found = Summary()

    def count(notice: Notice) -> None:
        if notice.kind is not NoticeKind.UNFINISHED:
            found.add(notice.call)

    tracing = prepare_tracing(session, options.engine, options.clock)
    sink = make_sink(tracing, options, parse_trace_choice(options, tracing), count)
    if not options.json:
        gdb.write(render_start(tracing, options) + "\n")
    outcome = tracing.run(sink, options.seconds, Outlet(private=options.json))
    for call in sink.still_open():
        found.add(call)
    return tracing, found, outcome
