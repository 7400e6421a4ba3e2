"""What is said when the guest shuts down or resets itself and QEMU holds it there, as `exogdb run` has it do."""

import gdb

from exogdb.interrupts import interrupts_held, undisturbed
from exogdb.target.run.shutdown import SHUTDOWN, is_shutdown

__all__ = ["say_shutdown"]

_ADVICE = (
    f"{SHUTDOWN.capitalize()} itself; a triple fault resets, too. It stands where that happened, and cannot go on "
    "(`continue` would wait for ever). The CPU that caused it need not be the selected one: `info threads`. "
    "$cr2 has the last page fault's address. `exo-syscall check`, `exo-gs`, `exo-idt` and `exo-tss` look closer."
)


def say_shutdown() -> None:
    """What it means and where to look. Not on standard output, where a script may expect JSON."""
    with interrupts_held():
        from exogdb.commands.registry import current_style
        from exogdb.view.table import render_sentence
    gdb.write(render_sentence(_ADVICE, current_style(), "warning") + "\n", gdb.STDERR)


@undisturbed
def _on_stop(event: gdb.StopEvent) -> None:
    if is_shutdown(event):
        say_shutdown()


gdb.events.stop.connect(_on_stop)
