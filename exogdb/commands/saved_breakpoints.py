"""A breakpoint on system calls that GDB's own `break` makes: `source` of what `save breakpoints` wrote.

Nothing about these breakpoints is imported before the first of them.
"""

import gdb

from exogdb.interrupts import undisturbed

__all__: list[str] = []


@undisturbed
def _take_in(row: gdb.Breakpoint) -> None:
    if not (row.location or "").lstrip().startswith("-probe"):
        return
    from exogdb.commands.syscall_break import FOLLOWER

    FOLLOWER.on_created(row)


gdb.events.breakpoint_created.connect(_take_in)
