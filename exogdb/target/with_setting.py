"""GDB's own settings, changed for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from exogdb.interrupts import finish, interrupts_held

__all__ = ["with_setting"]


@contextmanager
def with_setting(name: str, value: bool | int | str | None) -> Iterator[None]:
    """GDB's setting `name` is `value` inside the block.

    As `gdb.with_parameter`, which a Ctrl-C can end before the setting is what it was: the user's language, say.
    Ctrl-C waits for both changes: GDB looks for the selected frame behind each, and half a frame, left behind by
    one, ends GDB at the next ("Recursive internal problem", GDB 13).
    """
    before = gdb.parameter(name)
    if before == value:
        yield
        return
    try:
        with interrupts_held():
            gdb.set_parameter(name, value)
        yield
    finally:
        finish(lambda: gdb.set_parameter(name, before))
