"""`exo-syscall record`: a trace into a file, for `exogdb report` and for scripts."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from shlex import quote

import gdb

from exogdb.commands.candidates import complete_calls
from exogdb.commands.completion import complete_path
from exogdb.commands.registry import command
from exogdb.commands.tracing import (
    RecordLines,
    add_trace_arguments,
    make_sink,
    make_words,
    parse_trace_choice,
    render_start,
    report_end,
)
from exogdb.launch.script import find_launcher
from exogdb.target.session import Session
from exogdb.target.trace.outlet import LineBuffer, Outlet, open_output_file
from exogdb.target.trace.tracing import prepare_tracing

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    add_trace_arguments(parser)


@command(
    "exo-syscall record",
    holds_ctrl_c=True,
    add_arguments=_add_arguments,
    complete={"FILE": complete_path, "CHOICE": complete_calls},
    shows_data=False,
)
def exo_syscall_record(session: Session, options: Namespace) -> None:
    """Write every system call to FILE, until Ctrl-C.

    Usage: exo-syscall record FILE [CHOICE] [--count N] [--for SECONDS]
                              [--engine auto|log|stops] [--clock host|guest]
    Example: exo-syscall record boot.trace --for 10

    The file has one JSON object a line. `exogdb report FILE` makes a page of it:
    timelines, latencies, who talks to whom. CHOICE is written as for
    `exo-syscall break`.

    --count N and --for SECONDS end it by themselves; --engine and --clock are
    those of `exo-syscall trace`.
    """
    tracing = prepare_tracing(session, options.engine, options.clock)
    choice = parse_trace_choice(options, tracing)
    words, observers = make_words(tracing)
    with open_output_file(options.file) as file:
        gdb.write(render_start(tracing, options) + "\n")
        buffer = LineBuffer(file.write)
        lines = RecordLines(tracing, words, buffer.write)
        sink = make_sink(tracing, options, choice, lines.write, observers)
        sink.flush = buffer.flush
        outcome = tracing.run(sink, options.seconds, Outlet())
        lines.finish(sink, outcome)
    report_end(outcome, gdb.write)
    # On a line of its own, to be copied.
    gdb.write(f"{options.file}: outside GDB, this makes a page of it:\n")
    gdb.write(f"  {quote(find_launcher())} report {quote(str(options.file))}\n")
