"""What the word being typed can become: a subcommand's option, the value of one, or an argument.

It follows argparse's reading of the words in front, so that after `--cpu` CPUs are offered and nothing else.
"""

from argparse import Action, ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from exogdb.home import expand_home

__all__ = ["Completer", "complete_list", "complete_path", "complete_word"]

# The candidates for a word of which `token` has been typed; those that do not continue it are left out later.
Completer = Callable[[str], Iterable[str]]
_MANY = ("*", "+")


def complete_word(
    parser: ArgumentParser, completers: Mapping[str, Completer], words: Sequence[str], token: str
) -> list[str]:
    """Everything that `token`, typed behind `words`, can become: whole words, sorted.

    `completers` are by what they complete: an option (`--cpu`) or the metavar of an argument (`CALLS`). Choices
    that argparse knows need none.

    >>> parser = ArgumentParser()
    >>> _ = parser.add_argument("--via", choices=["qmp", "quiet", "gdb"]), parser.add_argument("names", nargs="*")
    >>> complete_word(parser, {}, ["efer", "--via"], "q"), complete_word(parser, {}, [], "--v")
    (['qmp', 'quiet'], ['--via'])
    """
    name, equals, value = token.partition("=")
    if equals and name in parser._option_string_actions:
        found = [f"{name}={word}" for word in _values(parser._option_string_actions[name], completers, value)]
    elif token.startswith("-") and _open_option(parser, words) is None:
        found = list(parser._option_string_actions)
    else:
        action = _open_option(parser, words) or _next_argument(parser, words)
        found = _values(action, completers, token) if action is not None else []
    return sorted({word for word in found if word.startswith(token)})


def complete_list(token: str, words: Iterable[str]) -> list[str]:
    """Continuations of a comma-separated list by one of `words`, the whole list each time.

    >>> complete_list("EXO001,EXO0", ["EXO001", "EXO002"])
    ['EXO001,EXO002']
    """
    head, comma, last = token.rpartition(",")
    taken = head.split(",")
    return [f"{head}{comma}{word}" for word in words if word.startswith(last) and word not in taken]


def complete_path(token: str) -> list[str]:
    """Files and directories that begin with `token`; `~` stands for the home directory.

    A directory that is the only one is followed by what it holds: GDB would otherwise put a blank behind it.
    """
    typed, _, start = token.rpartition("/")
    folder = f"{typed}/" if "/" in token else ""
    try:
        entries = sorted(expand_home(Path(folder or ".")).iterdir())
    except OSError:
        return []
    hidden = start.startswith(".")
    found = [one for one in entries if one.name.startswith(start) and (hidden or not one.name.startswith("."))]
    if len(found) == 1 and found[0].is_dir():
        inside = f"{folder}{found[0].name}/"
        return complete_path(inside) or [inside]
    return [f"{folder}{one.name}" for one in found]


def _values(action: Action, completers: Mapping[str, Completer], token: str) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    keys = [*action.option_strings, str(action.metavar)]
    return [word for key in keys if key in completers for word in completers[key](token)]


def _takes_value(action: Action) -> bool:
    return action.nargs != 0


def _open_option(parser: ArgumentParser, words: Sequence[str]) -> Action | None:
    """The option at the end of `words` that still wants its value."""
    action = parser._option_string_actions.get(words[-1]) if words else None
    return action if action is not None and _takes_value(action) else None


def _next_argument(parser: ArgumentParser, words: Sequence[str]) -> Action | None:
    """The argument that comes after `words`; None if there is none left."""
    given, is_value = 0, False
    for word in words:
        action = parser._option_string_actions.get(word)
        if action is not None:
            is_value = _takes_value(action)
        else:
            given += not is_value and not word.startswith("--")
            is_value = False
    arguments = [action for action in parser._actions if not action.option_strings]
    if given >= len(arguments):
        return arguments[-1] if arguments and arguments[-1].nargs in _MANY else None
    return arguments[given]
