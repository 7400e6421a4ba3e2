"""Having GDB's own thread do something, from another thread, while it waits for the guest.

What GDB has been given by `gdb.post_event` and has not done when it exits, GDB 13 destroys after Python is gone,
which ends it with SIGSEGV. A trace may well leave something: whatever came after the guest had stopped. So GDB is
made to leave just before that; everything else that it does at its end is done by then.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Callable

import gdb

__all__ = ["run_on_main_thread"]

_lock = threading.Lock()
_waiting = 0
_exit_code = 0


def run_on_main_thread(call: Callable[[], object]) -> None:
    """Have GDB's thread call it, in its event loop. From any thread; returns at once."""
    global _waiting
    with _lock:
        _waiting += 1
    gdb.post_event(lambda: _call(call))


def _call(call: Callable[[], object]) -> None:
    global _waiting
    with _lock:
        _waiting -= 1
    call()


def _note_exit(event: gdb.GdbExitingEvent) -> None:
    global _exit_code
    _exit_code = event.exit_code


def _leave() -> None:
    """Python's last act: GDB has let the guest go, closed its connection and written its history."""
    if _waiting:
        ctypes.CDLL(None).fflush(None)
        os._exit(_exit_code)


gdb.events.gdb_exiting.connect(_note_exit)
atexit.register(_leave)
