"""Letting the guest run for a while from inside a command, and stopping it again."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from exogdb.errors import TargetLostError
from exogdb.interrupts import no_signals
from exogdb.target.run.ctrl_c import CTRL_C, is_ctrl_c_pending
from exogdb.target.run.main_thread import run_on_main_thread
from exogdb.target.run.shutdown import SHUTDOWN, is_shutdown, require_runnable
from exogdb.target.with_setting import with_setting

__all__ = ["QEMU_ENDED", "Stopper", "run_guest"]

QEMU_ENDED = "QEMU ended while the guest ran: start it again and use `target remote`"

_LOOK_SECONDS = 0.05


class Stopper:
    """Asks for a stop when `stop` is called, from any thread.

    `ending` says why, and is empty if it was not asked for a stop: then the user, or a breakpoint, ended the run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_running = False
        self.ending = ""

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return bool(self.ending)

    def stop(self, why: str = "as asked for") -> None:
        """Stop the guest, if it runs and was not asked to already. May be called from any thread."""
        with self._lock:
            if not self._is_running or self.ending:
                return
            self.ending = why
        self.ask()

    def ask(self) -> None:
        """Ask QEMU once more. It does not hear who asks while it stands at a breakpoint that GDB lets pass."""
        run_on_main_thread(self._interrupt)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The guest runs inside the block; outside it `stop` does nothing."""
        with self._lock:
            self._is_running = True
            self.ending = ""
        try:
            yield
        finally:
            with self._lock:
                self._is_running = False

    def _interrupt(self) -> None:
        # Runs on GDB's thread, in its event loop; by then the guest may have stopped for another reason.
        with self._lock:
            if not self._is_running:
                return
        gdb.execute("interrupt", to_string=True)


def run_guest(stopper: Stopper, seconds: float | None) -> str:
    """Continue, wait for the next stop, and say why it came: `stopper`, Ctrl-C, `seconds` over, or what GDB saw.

    The guest must be stopped, and is stopped afterwards. Ctrl-C must be held (`exogdb.target.run.ctrl_c`):
    one that has come before the guest runs ends the run at once, and no moment is left in which one is overlooked.
    It stays pending, for what else may have to end with it.

    :raise TargetLostError: QEMU ended or closed the connection.
    :raise UnavailableError: the guest has shut down.
    """
    require_runnable()
    seen: list[gdb.StopEvent] = []
    gdb.events.stop.connect(seen.append)
    try:
        with with_setting("pagination", False), stopper.running(), _watching(stopper, seconds):
            gdb.execute("continue", from_tty=False)
    except gdb.error as error:
        if gdb.selected_inferior().pid == 0 or "Remote c" in str(error):
            raise TargetLostError(QEMU_ENDED) from error
        raise
    finally:
        gdb.events.stop.disconnect(seen.append)
    if gdb.selected_inferior().pid == 0:
        raise TargetLostError(QEMU_ENDED)
    return _describe_stop(seen[-1] if seen else None, stopper)


@contextmanager
def _watching(stopper: Stopper, seconds: float | None) -> Iterator[None]:
    """A thread looks for Ctrl-C and at the clock: GDB's own waits for the guest."""
    deadline = None if seconds is None else time.monotonic() + seconds
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS if deadline is None else _until(deadline)):
            if stopper.requested:
                stopper.ask()
            elif is_ctrl_c_pending():
                stopper.stop(CTRL_C)
            elif deadline is not None and time.monotonic() >= deadline:
                stopper.stop()

    watcher = threading.Thread(target=watch, name="exogdb-watch", daemon=True)
    with no_signals():
        watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _until(deadline: float) -> float:
    """Seconds to the next look: to the deadline, if that is sooner and still to come."""
    left = deadline - time.monotonic()
    return left if 0 < left < _LOOK_SECONDS else _LOOK_SECONDS


def _describe_stop(event: gdb.StopEvent | None, stopper: Stopper) -> str:
    if isinstance(event, gdb.BreakpointEvent):
        return f"breakpoint {event.breakpoint.number}"
    if event is not None and is_shutdown(event):
        return SHUTDOWN
    if isinstance(event, gdb.SignalEvent) and event.stop_signal != "SIGINT":
        return event.stop_signal
    return stopper.ending or "the guest was stopped by somebody else"
