"""Whether GDB can read a user's condition, found out when it is given and not at the first hit."""

from collections.abc import Iterable

import gdb

from exogdb.errors import UsageError
from exogdb.target.with_setting import with_setting

__all__ = ["check_condition"]

_LANGUAGES = ("", "c", "rust")  # as it is now, which may be assembly's, and what kernels are written in


def check_condition(expression: str, addresses: Iterable[int]) -> None:
    """Parse `expression` in the scope of each of `addresses` until one takes it. Nothing is evaluated.

    GDB does that for the condition of a breakpoint; the one that is made for it is never inserted.

    :raise UsageError: none of them does.
    """
    problem = ""
    for address in addresses:
        for language in _LANGUAGES:
            found = _parse(expression, address, language)
            if not found:
                return
            problem = problem or found
    if problem:
        raise UsageError(f"`--if {expression}`: {problem}")


def _parse(expression: str, address: int, language: str) -> str:
    """What is wrong with `expression` at `address`; empty if nothing is."""
    probe = gdb.Breakpoint(f"*{address:#x}", internal=True)
    try:
        with with_setting("language", language or gdb.parameter("language")):
            probe.condition = expression
    except gdb.error as error:
        return str(error)
    finally:
        probe.delete()
    return ""
