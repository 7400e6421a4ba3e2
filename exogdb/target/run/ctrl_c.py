"""Ctrl-C held back while something must not be left half done.

Neither GDB nor Python notices a signal that is held. It stays pending, and whoever holds it looks for it where
that is safe. GDB's worker threads hold SIGINT for good, so it cannot slip past.
"""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

import gdb

from exogdb.interrupts import held, take_ctrl_c
from exogdb.target.run.main_thread import run_on_main_thread

__all__ = [
    "CTRL_C",
    "ctrl_c_held",
    "decide_undisturbed",
    "is_ctrl_c_pending",
]

CTRL_C = "Ctrl-C"


def ctrl_c_held() -> AbstractContextManager[None]:
    """Hold it inside the block, on GDB's own thread. One that was not taken arrives afterwards."""
    return held({signal.SIGINT})


def is_ctrl_c_pending() -> bool:
    """Whether it has come while it is held. From any thread; changes nothing."""
    return signal.SIGINT in signal.sigpending()


_is_stop_wanted = False


def decide_undisturbed(decide: Callable[[], bool]) -> bool:
    """What `decide()` says about a stop. A Ctrl-C that comes meanwhile stops the guest when it goes on.

    GDB would print it as an error of the condition, and stop at a call that nobody asked for.
    """
    global _is_stop_wanted
    with ctrl_c_held():
        answer = decide()
        _is_stop_wanted |= take_ctrl_c()
    if _is_stop_wanted:
        # QEMU does not notice what it is sent while it stands at the next hit: once more at each, until it has.
        run_on_main_thread(_interrupt)
    return answer


def _interrupt() -> None:
    thread = gdb.selected_thread()
    if thread is not None and thread.is_running():
        gdb.execute("interrupt", to_string=True)


def _forget_stop(_event: gdb.StopEvent) -> None:
    global _is_stop_wanted
    _is_stop_wanted = False


gdb.events.stop.connect(_forget_stop)
