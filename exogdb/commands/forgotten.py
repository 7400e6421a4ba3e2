"""Before GDB's first prompt after an attach: what a GDB that was killed has left switched on in QEMU."""

import gdb

from exogdb.interrupts import undisturbed
from exogdb.target.connection import is_remote

__all__: list[str] = []


@undisturbed
def _look(_event: None = None) -> None:
    if not is_remote():
        return
    from exogdb.target.trace.forgotten import end_forgotten_log

    said = end_forgotten_log()
    if said:
        gdb.write(f"{said}\n", gdb.STDERR)


gdb.events.before_prompt.connect(_look)
