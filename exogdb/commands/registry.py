"""How a function becomes a GDB command: the one place that parses options, checks the target and reports errors.

A command is a function with a decorator, in the file that `exogdb.commands.COMMANDS` names::

    @command("exo-gs", add_arguments=_add_arguments)
    def exo_gs(session: Session, options: Namespace) -> Output:
        \"\"\"One line that says what it shows.

        Usage: exo-gs [--json]
        Example: exo-gs
        \"\"\"

The docstring is what `help exo-gs` prints; the function is called like the command, so that its help can be read
without importing it. `Output` carries a report's text and its JSON form; the registry prints the one that was
asked for. An `ExoError` becomes one `gdb.GdbError` sentence. Ctrl-C passes through, so that GDB says `Quit` as it
always does. Symbols of another build than the one that runs are warned of, on standard error.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

import gdb

from exogdb.commands import COMMANDS
from exogdb.commands.completion import Completer, complete_word
from exogdb.commands.lazy import import_command
from exogdb.errors import ExoError, UsageError
from exogdb.target.connection import BROKEN, is_broken
from exogdb.target.reset import notice_reset
from exogdb.target.run.ctrl_c import ctrl_c_held
from exogdb.target.session import Session, asking_guest, find_guest, require_guest
from exogdb.target.symbol_match import find_other_builds
from exogdb.target.trace.forgotten import end_forgotten_log
from exogdb.view.style import Style

__all__ = [
    "Command",
    "Output",
    "command",
    "complete",
    "current_style",
    "explain",
    "find_command",
    "prefix",
    "run",
]


@dataclass(frozen=True)
class Output:
    """What a command found, in both forms. Each is made only when it is wanted.

    `failure` is what the command fails with after its output, for `gdb -batch` and scripts; empty for success.
    `then` is done once the output is there: asking the user for more, say.
    """

    render: Callable[[Style], str]
    to_json: Callable[[], dict[str, Any]]
    failure: str = ""
    then: Callable[[], None] | None = None


Body = Callable[..., Output | None]


@dataclass(frozen=True)
class Command:
    """One entry of the registry. `needs_guest` says whether `body` gets a `Session` before its options."""

    name: str
    body: Body
    needs_guest: bool
    parser: ArgumentParser
    completers: Mapping[str, Completer]
    is_name_too: bool = False
    holds_ctrl_c: bool = False


_imported: dict[str, Command] = {}


def command(
    name: str,
    *,
    add_arguments: Callable[[ArgumentParser], None] | None = None,
    complete: Mapping[str, Completer] | None = None,
    needs_guest: bool = True,
    shows_data: bool = True,
    is_name_too: bool = False,
    holds_ctrl_c: bool = False,
) -> Callable[[Body], Body]:
    """Put the decorated function into the registry as GDB command `name`.

    `complete` yields candidates for the word being typed, by option or by the metavar of an argument; options and
    the choices that argparse knows complete by themselves. A command that shows data gets `--json` by itself.
    `is_name_too` says that the last word of `name` is also an argument of the command in front of it, which gets
    whatever this one does not understand. `holds_ctrl_c` is for a command that looks for Ctrl-C by itself, where
    that is safe (`exogdb.target.run.ctrl_c`): nothing else notices it.
    """

    def register(body: Body) -> Body:
        parser = _Parser(prog=name, add_help=False, allow_abbrev=False)
        if add_arguments is not None:
            add_arguments(parser)
        if shows_data:
            parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        _imported[name] = Command(name, body, needs_guest, parser, complete or {}, is_name_too, holds_ctrl_c)
        return body

    return register


def prefix(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Put the decorated function, of which only the docstring counts, into the registry as a pure prefix.

    That is a word that only other commands follow.
    """

    def refuse(options: Namespace) -> None:
        if options.rest:
            known = [
                entry.removeprefix(f"{name} ").split()[0] for entry in COMMANDS if entry.startswith(f"{name} ")
            ]
            raise UsageError(f"{name} has no subcommand {options.rest[0]!r}{_suggest(options.rest[0], known)}")
        raise UsageError(f"{name} needs a subcommand: `help {name}` lists them")

    def register(documented: Callable[[], None]) -> Callable[[], None]:
        parser = _Parser(prog=name, add_help=False)
        parser.add_argument("rest", nargs="*")
        _imported[name] = Command(name, refuse, False, parser, {})
        return documented

    return register


def find_command(name: str) -> Command:
    """The command `name` of `COMMANDS`; its module is imported first, if it has not been."""
    if name not in _imported:
        import_command(name)
    return _imported[name]


def _suggest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, sorted(set(known)), n=1)
    return f": did you mean `{close[0]}`?" if close else f": there are {', '.join(sorted(set(known)))}"


def current_style() -> Style:
    """What GDB's terminal takes now: its `width`, and colour if `style enabled` and stdout is a terminal.

    $NO_COLOR, if it is not empty, is a no (https://no-color.org): GDB 16 obeys it by itself, GDB 13 does not.
    """
    width = gdb.parameter("width")
    terminal = sys.__stdout__
    wanted = bool(gdb.parameter("style enabled")) and not os.environ.get("NO_COLOR")
    colour = wanted and terminal is not None and terminal.isatty()
    return Style(colour=colour, width=width if isinstance(width, int) and width > 0 else 0)


class _Parser(ArgumentParser):
    """argparse that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; `help {self.prog}` shows the usage")


def run(name: str, argument: str) -> None:
    """Run the command `name` as GDB has it typed, with `argument` behind it.

    :raise gdb.GdbError: it fails, for the reason that this says in one sentence.
    """
    entry = find_command(name)
    try:
        entry, options = _parse(entry, gdb.string_to_argv(argument))
        with ctrl_c_held() if entry.holds_ctrl_c else nullcontext():
            _run_body(entry, options)
    except ExoError as error:
        raise gdb.GdbError(str(error)) from None
    except gdb.error as error:
        raise gdb.GdbError(explain(entry.name, error)) from None
    except UnicodeDecodeError as error:
        raise gdb.GdbError(
            f"{entry.name}: GDB has a file name that is not {error.encoding}, {error.object!r}: `set host-charset`"
            " to what it is written in"
        ) from None


def _run_body(entry: Command, options: Namespace) -> None:
    session = require_guest() if entry.needs_guest else find_guest()
    if session is None:
        _run_on(entry, options, None)
        return
    with asking_guest():
        _run_on(entry, options, session)


def _run_on(entry: Command, options: Namespace, session: Session | None) -> None:
    if session is not None:
        for warning in (end_forgotten_log(), notice_reset(), *find_other_builds(session.memory)):
            if warning:
                gdb.write(warning + "\n", gdb.STDERR)
    inputs = (session, options) if entry.needs_guest else (options,)
    output = entry.body(*inputs)
    if output is not None:
        _write(output, as_json=getattr(options, "json", False))
        if output.failure:
            raise UsageError(output.failure)
        if output.then is not None:
            output.then()


def _parse(entry: Command, words: list[str]) -> tuple[Command, Namespace]:
    """The options; of the command in front if that takes this one's last word and what follows it.

    `exo-msr star` is a command, and `star lstar` are two MSRs that `exo-msr` shows.
    """
    if entry.is_name_too:
        options, rest = entry.parser.parse_known_intermixed_args(words)
        if not rest:
            return entry, options
        front = _front(entry)
        if not _unknown_options(front.parser, rest):
            return front, front.parser.parse_intermixed_args([entry.name.rpartition(" ")[2], *words])
    return entry, entry.parser.parse_intermixed_args(words)


def _front(entry: Command) -> Command:
    """The command that has the last word of `entry`'s name as an argument."""
    return find_command(entry.name.rpartition(" ")[0])


def _unknown_options(parser: ArgumentParser, words: list[str]) -> list[str]:
    known = parser._option_string_actions
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]


def _write(output: Output, *, as_json: bool) -> None:
    text = json.dumps(output.to_json(), indent=2) if as_json else output.render(current_style())
    gdb.write(text.rstrip("\n") + "\n")


def explain(name: str, error: gdb.error) -> str:
    """One sentence for what GDB itself could not do for the command or function `name`."""
    if is_broken(error):
        return f"{name}: {BROKEN}"
    text = " ".join(str(error).split())
    if "while the target is running" in text:
        return f"{name}: the guest is running: stop it with Ctrl-C (or `interrupt`) first"
    return f"{name}: GDB could not do this: {text}"


def complete(name: str, text: str, word: str | None) -> list[str]:
    """What the word at the end of `text`, typed behind command `name`, can become; GDB breaks it at `word`."""
    entry, words = find_command(name), text.split()
    token = words.pop() if words and not text[-1].isspace() else ""
    entries = [entry]
    if entry.is_name_too and not _unknown_options((front := _front(entry)).parser, words):
        entries.append(front)
    try:
        candidates = {word for one in entries for word in complete_word(one.parser, one.completers, words, token)}
    except (ExoError, gdb.error):
        return []
    # GDB breaks words at '-', '%' and '/', argparse and the user at blanks: give back what follows GDB's break.
    typed = len(token) - len(word or "")
    return sorted(candidate[typed:] for candidate in candidates)
