"""The GDB commands that the source registers: what holds for every one of them is tested over this list.

`gdb` cannot be imported outside GDB, so the registry's calls are read from the source.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness.gdb import Gdb
from tests.harness.source import Module, for_each_module

__all__ = ["RegisteredCommand", "ask_options", "for_each_command"]

ASK = (
    "python import json; from exogdb.commands import COMMANDS; "
    "from exogdb.commands.registry import find_command; print(json.dumps({name: {option: action.nargs != 0 "
    "for action in find_command(name).parser._actions for option in action.option_strings} "
    "for name in COMMANDS}))"
)


@dataclass(frozen=True)
class RegisteredCommand:
    """A command as the source registers it: `function` in `module`, whose docstring is `help_text`."""

    name: str
    module: Module
    function: str
    help_text: str
    is_pure_prefix: bool

    @property
    def pages(self) -> list[str]:
        """Names of the pages that may describe it: its own, or that of a prefix of it."""
        words = self.name.split()
        return ["-".join(words[:count]) for count in range(len(words), 0, -1)]


def for_each_command() -> Iterator[RegisteredCommand]:
    """Every command, prefixes included, in order of file and line."""
    for module in for_each_module("exogdb/commands"):
        for function in module.functions:
            for decorator in ("command", "prefix"):
                for call in _calls(function.decorator_list, decorator):
                    text = ast.get_docstring(function) or ""
                    yield RegisteredCommand(_text(call, 0), module, function.name, text, decorator == "prefix")


def ask_options(gdb: Gdb) -> dict[str, dict[str, bool]]:
    """Of every command that the GDB with the plugin knows, its options, and whether each takes a value."""
    answer: dict[str, dict[str, bool]] = json.loads(gdb.run(ASK))
    return answer


def _calls(expressions: list[ast.expr], function: str) -> Iterator[ast.Call]:
    for node in expressions:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield node


def _text(call: ast.Call, position: int) -> str:
    return str(ast.literal_eval(call.args[position]))
