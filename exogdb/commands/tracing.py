"""What `trace`, `summary` and `record` have in common: options, words, and the lines before and after."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import gdb

from exogdb.abi.choice import Choice, parse_choice
from exogdb.commands.callers import Callers
from exogdb.commands.registry import current_style
from exogdb.errors import OutputError
from exogdb.target.cpus import all_cpus
from exogdb.target.programs import Program, find_caller, read_programs
from exogdb.target.trace.memory_text import TextAtStops
from exogdb.target.trace.signatures import read_error_names, read_signatures
from exogdb.target.trace.tracing import CLOCKS, ENGINES, Tracing
from exogdb.trace.call import Call, CallState
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.outcome import Outcome
from exogdb.trace.record import Header, Shown, call_to_json
from exogdb.trace.signature import Kind, Signature
from exogdb.trace.sink import Observer, Sink
from exogdb.view.call import CallWords
from exogdb.view.table import render_sentence

__all__ = [
    "RecordLines",
    "add_trace_arguments",
    "make_sink",
    "make_words",
    "parse_trace_choice",
    "render_end",
    "render_start",
    "report_end",
]

_LONGEST_TEXT = 64


def add_trace_arguments(parser: ArgumentParser) -> None:
    """CHOICE, --count, --for, --engine and --clock."""
    parser.add_argument("choice", nargs="*", metavar="CHOICE")
    parser.add_argument("--count", type=_positive, metavar="N")
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--clock", choices=CLOCKS, default="host")


def parse_trace_choice(options: Namespace, tracing: Tracing) -> Choice | None:
    """The calls that were asked for; None for all of them."""
    return parse_choice(" ".join(options.choice), tracing.numbers) if options.choice else None


def make_words(tracing: Tracing, *, with_stack: bool = False) -> tuple[CallWords, list[Observer]]:
    """The words for this kernel's calls, and what reads memory for them if the engine stops the guest.

    Without stops the guest runs on while its calls are decoded, so that only constant data of the programs'
    own files is shown behind pointers.
    """
    signatures = read_signatures(tracing.numbers)
    programs = read_programs()
    reader = TextAtStops(signatures) if tracing.engine == "stops" else None
    observers: list[Observer] = [reader] if reader is not None else []
    names = map(read_error_names, (entry.handler for entry in tracing.numbers))
    words = CallWords(
        tracing.numbers,
        signatures,
        next(filter(None, names), {}),
        reader.find_text if reader is not None else _constant_text(programs, signatures),
        _program_finder(programs),
    )
    if reader is not None:
        words.read_texts = reader.find_texts
    if with_stack:
        callers = Callers(programs)
        observers.append(callers)
        words.find_stack = callers.find_stack
    return words, observers


def make_sink(
    tracing: Tracing,
    options: Namespace,
    choice: Choice | None,
    write: Callable[[Notice], None],
    observers: Sequence[Observer] = (),
) -> Sink:
    """A sink for the chosen calls, with `observers` for an engine that stops the guest."""
    is_told_before = tracing.engine == "log"
    return Sink(write, choice, options.count, tracing.pairing(), observers, is_told_before=is_told_before)


def render_start(tracing: Tracing, options: Namespace) -> str:
    """The first lines: which engine, and why, how long, by which clock if times are shown, what is not sure."""
    until = ["Ctrl-C"]
    until += [f"{options.count:,} call{'s' * (options.count > 1)}"] if options.count is not None else []
    until += [f"{options.seconds:g} s"] if options.seconds is not None else []
    blind = tracing.engine == "log" and not tracing.points.result_in_rax
    results = "; this kernel returns results through the saved frame: --engine stops shows them" if blind else ""
    clock = f"\ntimes: {tracing.clock}" if getattr(options, "time", False) else ""
    head = f"tracing by {tracing.engine_name} ({tracing.reason}), until {' or '.join(until)}{results}{clock}"
    return _wrapped([*head.splitlines(), *(f"not sure: {doubt}" for doubt in tracing.path.doubts)])


def render_end(outcome: Outcome) -> str:
    """The last lines: how it ended, how much was seen, and everything that is wrong with it."""
    seen = f"{outcome.entries:,} entries and {outcome.returns:,} returns seen in {outcome.seconds:.3g} s"
    shown = (
        "" if outcome.shown == outcome.entries else f"{outcome.shown:,} call{'s' * (outcome.shown != 1)} shown, "
    )
    counted = outcome.dispatched is not None and not outcome.lost
    checked = f"; the kernel counted {outcome.dispatched:,}" if counted else ""
    warnings = [f"warning: {finding}" for finding in outcome.findings()]
    return _wrapped([f"ended ({outcome.ending}): {shown}{seen}{checked}", *warnings])


def _wrapped(sentences: list[str]) -> str:
    """Each so that it fits the terminal."""
    style = current_style()
    return "\n".join(render_sentence(each, style) for each in sentences)


def report_end(outcome: Outcome, say: Callable[[str], object]) -> None:
    """Say how it ended.

    :raise OutputError: the output does not have all that was seen.
    """
    say(render_end(outcome) + "\n")
    if outcome.unwritten:
        raise OutputError(outcome.unwritten)


class RecordLines:
    """Writes a trace in the file format of `exogdb.trace.record`, a line at a time, to `put`."""

    def __init__(self, tracing: Tracing, words: CallWords, put: Callable[[str], object]) -> None:
        self._words = words
        self._put = put
        progspace = gdb.current_progspace()
        kernel = Path(progspace.filename or "kernel").name if progspace is not None else "kernel"
        started = datetime.now(UTC).isoformat(timespec="seconds")
        about = tracing.engine_name, tracing.clock, kernel, len(all_cpus()), started
        header = Header(*about, tracing.path.doubts, tracing.unit.value)
        self._put(json.dumps(header.to_json()) + "\n")

    def write(self, notice: Notice) -> None:
        """A call that is complete; those that are not yet wait for `finish`."""
        if notice.kind is not NoticeKind.UNFINISHED:
            self.write_call(notice.call)

    def write_call(self, call: Call) -> None:
        """One line."""
        words = self._words
        result = "" if call.state in (CallState.IN_PROGRESS, CallState.NEVER_RETURNED) else words.result(call)
        shown = Shown(words.name(call.number), tuple(words.arguments(call)), result, words.program(call))
        self._put(json.dumps(call_to_json(call, shown)) + "\n")

    def finish(self, sink: Sink, outcome: Outcome) -> None:
        """The calls that are still in progress, then the last line; nothing if the output takes no more."""
        try:
            if not outcome.unwritten:
                for call in sink.still_open():
                    self.write_call(call)
                self._put(json.dumps({"end": outcome.to_json()}) + "\n")
                sink.flush()
        except OutputError as error:
            outcome.unwritten = str(error)


def _constant_text(
    programs: list[Program], signatures: Mapping[int, Signature]
) -> Callable[[Call, int], bytes | None]:
    def read(call: Call, index: int) -> bytes | None:
        caller, arguments = call.user_rip, call.arguments
        if arguments is None or call.number is None or caller is None:
            return None
        program = find_caller(programs, caller)
        if program is None:
            return None
        parameter = signatures[call.number].parameters[index]
        if parameter.kind is Kind.TEXT:
            return program.data.find_text(arguments[index], _LONGEST_TEXT)
        if parameter.is_output or parameter.length_index is None:
            return None
        length = min(arguments[parameter.length_index], _LONGEST_TEXT)
        content = program.data.find(arguments[index], length)
        return content if content is not None and len(content) == length else None

    return read


def _program_finder(programs: list[Program]) -> Callable[[int], str]:
    @cache
    def find(user_rip: int) -> str:
        program = find_caller(programs, user_rip)
        return program.name if program is not None else ""

    return find


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"'{text}' is not a number of calls")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"'{text}' is not a time in seconds")
    return seconds
