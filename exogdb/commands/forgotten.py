"""Before GDB's first prompt after an attach: what a GDB that was killed has left switched on in QEMU."""

import gdb

from exogdb.interrupts import interrupts_postponed
from exogdb.target.connection import is_remote

__all__: list[str] = []


def _look(_event: None = None) -> None:
    if not is_remote():
        return
    with interrupts_postponed():
        from exogdb.target.trace.forgotten import end_forgotten_log
    said = end_forgotten_log()
    if said:
        gdb.write(f"{said}\n", gdb.STDERR)


gdb.events.before_prompt.connect(_look)
