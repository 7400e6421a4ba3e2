"""A guest that shut down or reset itself, and that QEMU holds there instead of ending (`-no-shutdown`)."""

import gdb

from exogdb.errors import TargetLostError, UnavailableError
from exogdb.interrupts import interrupts_held

__all__ = ["SHUTDOWN", "SHUTDOWN_SIGNAL", "is_shutdown", "note_shutdown", "require_runnable"]

SHUTDOWN = "the guest shut down or reset"
# QEMU's stub has a signal for each run state that is no debugger's stop (gdbstub, gdb_vm_state_change): SIGQUIT.
SHUTDOWN_SIGNAL = 3


def is_shutdown(event: gdb.StopEvent) -> bool:
    """Whether the guest stopped because it shut down or reset."""
    if not isinstance(event, gdb.SignalEvent) or event.stop_signal != "SIGQUIT":
        return False
    with interrupts_held():
        from exogdb.target.qemu.monitor import has_monitor
    try:
        return has_monitor()
    except TargetLostError:
        return False


def require_runnable() -> None:
    """Refuse to resume a guest that has shut down: QEMU would not run it, and answer neither that nor Ctrl-C.

    :raise UnavailableError: it was seen shutting down, and GDB has not resumed it since.
    """
    if _down:
        raise UnavailableError(f"{SHUTDOWN}, and cannot go on: quit, and start it again")


def note_shutdown() -> None:
    """The stub has said so to somebody else than GDB."""
    _down.append(True)


# Not empty while the guest stands where it shut down.
_down: list[bool] = []


def _note_stop(event: gdb.StopEvent) -> None:
    _down.clear()
    if is_shutdown(event):
        note_shutdown()


gdb.events.stop.connect(_note_stop)
gdb.events.cont.connect(lambda _event: _down.clear())
gdb.events.connection_removed.connect(lambda _event: _down.clear())
