"""`exo-syscall trace`: every system call as it happens, one line a call."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exogdb.commands.registry import command, current_style
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
from exogdb.target.tracing import Tracing, prepare_tracing
from exogdb.trace.pairing import Notice
from exogdb.view.call import CallWords
from exogdb.view.style import PLAIN
from exogdb.view.trace import TraceLines

__all__ = ["open_output"]

_BUFFERED_CHARACTERS = 1 << 14


def _add_arguments(parser: ArgumentParser) -> None:
    add_trace_arguments(parser)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--stack", action="store_true")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")


@command("exo-syscall trace", add_arguments=_add_arguments, complete=complete_choice_of_kernel, shows_data=False)
def trace(session: Session, options: Namespace) -> None:
    """Let the guest run and show every system call, one line a call, until Ctrl-C.

    Usage: exo-syscall trace [CHOICE] [--count N] [--for SECONDS] [--time] [--stack] [--output FILE] [--json]
    Example: exo-syscall trace %ipc --for 2

    CHOICE is written as for `exo-syscall break`. --json writes the format that `exogdb report` reads. --engine log
    or --engine stops asks for an engine; without it the fastest that this QEMU allows is taken.
    """
    tracing = prepare_tracing(session, options.engine)
    outlet = Outlet(private=options.json)
    with open_output(options.output, outlet) as put:
        say = _silent if options.json else outlet.write
        _run(tracing, options, put, say, outlet)


@contextmanager
def open_output(path: Path | None, outlet: Outlet) -> Iterator[Callable[[str], object]]:
    """Where the lines go: the file `path`, else GDB's output.

    :raise UsageError: the file cannot be written.
    """
    if path is None:
        yield outlet.write
        return
    try:
        file = path.expanduser().open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {path}: {error.strerror}") from error
    with file:
        yield file.write


def _run(
    tracing: Tracing,
    options: Namespace,
    put: Callable[[str], object],
    say: Callable[[str], object],
    outlet: Outlet,
) -> None:
    words, observers = make_words(tracing, with_stack=options.stack)
    say(render_start(tracing) + "\n")
    buffer = _Buffer(put)
    record = RecordLines(tracing, words, buffer.write) if options.json else None
    lines = _make_lines(tracing, words, options)

    def write_line(notice: Notice) -> None:
        buffer.write(lines.render(notice) + "\n")

    sink = make_sink(tracing, options, record.write if record is not None else write_line, observers)
    sink.flush = buffer.flush
    outcome = tracing.run(sink, options.seconds, outlet)
    if record is not None:
        record.finish(sink, outcome)
    buffer.flush()
    say(render_end(outcome) + "\n")


def _make_lines(tracing: Tracing, words: CallWords, options: Namespace) -> TraceLines:
    style = PLAIN if options.output is not None else current_style()
    origin = time.monotonic_ns() if tracing.engine == "log" else 0
    return TraceLines(words, style, options.time, origin)


class _Buffer:
    """Gathers lines, because one write for each would cost more than the line."""

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put
        self._texts: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        self._texts.append(text)
        self._size += len(text)
        if self._size >= _BUFFERED_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self._texts:
            self._put("".join(self._texts))
            self._texts, self._size = [], 0


def _silent(_text: str) -> None:
    return None
