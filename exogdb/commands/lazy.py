"""Commands and functions that GDB knows by name and help, and whose modules are imported at first use.

Ctrl-C waits for the import, so that a module is there whole or not at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import gdb

from exogdb.commands import COMMANDS, FUNCTIONS
from exogdb.commands.help_text import read_help
from exogdb.interrupts import interrupts_held, press_ctrl_c_again

__all__ = ["LazyCommand", "LazyFunction", "import_command"]


class LazyCommand(gdb.Command):
    """What GDB runs and completes as command `name`; the registry knows what that is."""

    def __init__(self, name: str) -> None:
        self.__doc__ = read_help(COMMANDS[name], name.replace("-", "_").replace(" ", "_"))
        is_prefix = any(other.startswith(f"{name} ") for other in COMMANDS)
        super().__init__(name, gdb.COMMAND_DATA, prefix=is_prefix)
        self._name = name

    def invoke(self, argument: str, _from_tty: bool) -> None:
        """GDB runs the command."""
        with _first_use():
            from exogdb.commands.registry import run
        run(self._name, argument)

    def complete(self, text: str, word: str | None) -> list[str]:
        """The TAB key behind the command. What is wrong is for `invoke` to say: GDB 16 prints exceptions here."""
        try:
            with _first_use():
                from exogdb.commands.registry import complete
            return complete(self._name, text, word)
        except KeyboardInterrupt:
            press_ctrl_c_again()
        except gdb.GdbError:
            pass
        return []


class LazyFunction(gdb.Function):
    """What GDB evaluates as `$name(...)`: the function of that name in its module."""

    def __init__(self, name: str) -> None:
        self.__doc__ = read_help(FUNCTIONS[name], name)
        super().__init__(name)
        self._name = name

    def invoke(self, *arguments: gdb.Value) -> gdb.Value | bool:
        """GDB evaluates the function."""
        value: gdb.Value | bool = getattr(_import(FUNCTIONS[self._name]), self._name)(*arguments)
        return value


def import_command(name: str) -> None:
    """Have the module of command `name` put it into the registry."""
    _import(COMMANDS[name])


def _import(module: str) -> ModuleType:
    with _first_use():
        return import_module(f"{__package__}.{module}")


@contextmanager
def _first_use() -> Iterator[None]:
    """Around an import: Ctrl-C waits for it, and a file that is gone or another since `source` is one sentence."""
    try:
        with interrupts_held():
            yield
    except ImportError as error:
        raise gdb.GdbError(
            f"exogdb's files have changed since GDB loaded them ({error}): start GDB again"
        ) from None
