"""What exogdb runs around a command of GDB's own, by GDB's hooks for user-defined commands."""

from collections.abc import Callable

import gdb

__all__ = ["run_before", "run_behind"]


class _Step(gdb.Command):
    """A command of its own: where Ctrl-C strikes one, GDB says "Quit" and ends what had run it.

    In a line of `python` it would print a traceback and become an error of the hooked command's.
    """

    def __init__(self, name: str, doc: str, action: Callable[[], None]) -> None:
        self.__doc__ = doc
        self._action = action
        super().__init__(name, gdb.COMMAND_MAINTENANCE)

    def invoke(self, _argument: str, _from_tty: bool) -> None:
        self._action()


def run_before(command: str, action: Callable[[], None]) -> None:
    """Run `action` whenever `command` is typed or executed, before it."""
    _hook(command, "before", "hook", action)


def run_behind(command: str, action: Callable[[], None]) -> None:
    """Run `action` whenever `command` was typed or executed and has not failed."""
    _hook(command, "behind", "hookpost", action)


def _hook(command: str, when: str, kind: str, action: Callable[[], None]) -> None:
    name = f"maintenance exo-{when}-{command.replace(' ', '-')}"
    _Step(name, f"What exogdb does {when} `{command}`. Example: {name}", action)
    *prefix, last = command.split()
    gdb.execute("\n".join(["define " + " ".join([*prefix, f"{kind}-{last}"]), name, "end\n"]))
