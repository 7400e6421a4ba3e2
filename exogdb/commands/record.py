"""`exo-syscall record`: a trace into a file, for `exogdb report` and for scripts."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import gdb

from exogdb.commands.registry import command
from exogdb.commands.tracing import (
    RecordLines,
    add_trace_arguments,
    complete_choice_of_kernel,
    make_sink,
    make_words,
    render_end,
    render_start,
)
from exogdb.errors import UsageError
from exogdb.target.outlet import Outlet
from exogdb.target.session import Session
from exogdb.target.tracing import prepare_tracing

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    add_trace_arguments(parser)


@command("exo-syscall record", add_arguments=_add_arguments, complete=complete_choice_of_kernel, shows_data=False)
def record(session: Session, options: Namespace) -> None:
    """Let the guest run until Ctrl-C and write every system call to FILE.

    Usage: exo-syscall record FILE [CHOICE] [--count N] [--for SECONDS] [--engine auto|log|stops]
    Example: exo-syscall record boot.trace --for 10

    The file has one JSON object a line. `exogdb report FILE` makes a page of it: timelines, latencies, who talks
    to whom.
    """
    tracing = prepare_tracing(session, options.engine)
    words, observers = make_words(tracing)
    path = options.file.expanduser()
    try:
        with path.open("w", encoding="utf-8") as file:
            gdb.write(render_start(tracing) + "\n")
            lines = RecordLines(tracing, words, file.write)
            sink = make_sink(tracing, options, lines.write, observers)
            outcome = tracing.run(sink, options.seconds, Outlet())
            lines.finish(sink, outcome)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    gdb.write(f"{render_end(outcome)}\n{path}: make a page of it with `exogdb report {path}`\n")
