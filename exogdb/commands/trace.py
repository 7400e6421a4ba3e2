"""`exo-syscall trace`: every system call as it happens, one line a call."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exogdb.commands.candidates import complete_calls
from exogdb.commands.completion import complete_path
from exogdb.commands.registry import command, current_style
from exogdb.commands.tracing import (
    RecordLines,
    add_trace_arguments,
    make_sink,
    make_words,
    parse_trace_choice,
    render_start,
    report_end,
)
from exogdb.target.session import Session
from exogdb.target.trace.outlet import LineBuffer, Outlet, open_output_file
from exogdb.target.trace.tracing import Tracing, prepare_tracing
from exogdb.trace.notice import Notice
from exogdb.view.call import CallWords
from exogdb.view.style import PLAIN
from exogdb.view.trace import TraceLines

__all__ = ["open_output"]


def _add_arguments(parser: ArgumentParser) -> None:
    add_trace_arguments(parser)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--stack", action="store_true")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")


@command(
    "exo-syscall trace",
    holds_ctrl_c=True,
    add_arguments=_add_arguments,
    complete={"--output": complete_path, "CHOICE": complete_calls},
    shows_data=False,
)
def exo_syscall_trace(session: Session, options: Namespace) -> None:
    """Show every system call, one line a call, until Ctrl-C.

    Usage: exo-syscall trace [CHOICE] [--count N] [--for SECONDS] [--time]
                             [--clock host|guest] [--stack] [--output FILE]
                             [--json] [--engine auto|log|stops]
    Example: exo-syscall trace %ipc --for 2

    CHOICE is written as for `exo-syscall break`. The guest runs; Ctrl-C, --count,
    --for or a breakpoint of your own stops it again.

    --count N      stop after N calls have been shown
    --for SECONDS  stop after this time
    --time         show when each call was entered and how long it took
    --clock guest  the times are the guest's own, in instructions under QEMU's
                   -icount, read at stops, 1 to 10 ms for each; otherwise they
                   are the host's: the log holds no other
    --stack        show below each call who made it
    --output FILE  write the calls to FILE, not to the terminal
    --json         write the format that `exogdb report` reads
    --engine log   read QEMU's log: fast, nothing stops
    --engine stops stop at each entry and return: slow, on any QEMU. Without
                   --engine the fastest that this QEMU allows is taken
    """
    tracing = prepare_tracing(session, options.engine, options.clock)
    choice = parse_trace_choice(options, tracing)
    words, observers = make_words(tracing, with_stack=options.stack)
    outlet = Outlet(private=options.json)
    say = _silent if options.json else outlet.write
    with open_output(options.output, outlet) as put:
        say(render_start(tracing, options) + "\n")
        buffer = LineBuffer(put)
        record = RecordLines(tracing, words, buffer.write) if options.json else None
        write = record.write if record is not None else _line_writer(_make_lines(tracing, words, options), buffer)
        sink = make_sink(tracing, options, choice, write, observers)
        sink.flush = buffer.flush
        outcome = tracing.run(sink, options.seconds, outlet)
        if record is not None:
            record.finish(sink, outcome)
    report_end(outcome, say)


@contextmanager
def open_output(path: Path | None, outlet: Outlet) -> Iterator[Callable[[str], object]]:
    """Where the lines go: the file `path`, else GDB's output.

    :raise UsageError: the file cannot be written.
    """
    if path is None:
        yield outlet.write
        return
    with open_output_file(path) as file:
        yield file.write


def _line_writer(lines: TraceLines, buffer: LineBuffer) -> Callable[[Notice], None]:
    def write(notice: Notice) -> None:
        buffer.write(lines.render(notice) + "\n")

    return write


def _make_lines(tracing: Tracing, words: CallWords, options: Namespace) -> TraceLines:
    style = PLAIN if options.output is not None else current_style()
    return TraceLines(words, style, options.time, tracing.read_clock(), tracing.unit)


def _silent(_text: str) -> None:
    return None
