"""Letting the guest run for a while from inside a command, and stopping it again."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from exogdb.errors import TargetLostError

__all__ = ["Stopper", "run_guest", "signals_blocked"]


class Stopper:
    """Asks for a stop: after `seconds` from the start, or when `stop` is called from any thread.

    `requested` says whether it has; it then was not the user, nor a breakpoint, that ended the run.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._is_running = False
        self.requested = False

    def stop(self) -> None:
        """Stop the guest, if it runs and was not asked to already. May be called from any thread."""
        with self._lock:
            if not self._is_running or self.requested:
                return
            self.requested = True
        gdb.post_event(self._interrupt)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The guest runs inside the block; outside it `stop` does nothing."""
        with self._lock:
            self._is_running = True
            self.requested = False
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self.stop)
            self._timer.daemon = True
            with signals_blocked():
                self._timer.start()
        try:
            yield
        finally:
            with self._lock:
                self._is_running = False
            if self._timer is not None:
                self._timer.cancel()

    def _interrupt(self) -> None:
        # Runs on GDB's thread, in its event loop; by then the guest may have stopped for another reason.
        with self._lock:
            if not self._is_running:
                return
        gdb.execute("interrupt", to_string=True)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """A thread that is started inside the block leaves every signal, Ctrl-C above all, to GDB's own thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_guest(stopper: Stopper) -> str:
    """Continue, wait for the next stop, and say why it came.

    The guest must be stopped, and is stopped afterwards. A stop for Ctrl-C is not an error here.

    :raise TargetLostError: QEMU ended or closed the connection.
    """
    seen: list[gdb.StopEvent] = []
    gdb.events.stop.connect(seen.append)
    try:
        with gdb.with_parameter("pagination", False), stopper.running():
            gdb.execute("continue", from_tty=False)
    except KeyboardInterrupt:
        _wait_for_stop()
    except gdb.error as error:
        if gdb.selected_inferior().pid == 0 or "Remote c" in str(error):
            raise TargetLostError(
                "QEMU ended while the guest ran: start it again and use `target remote`"
            ) from error
        raise
    finally:
        gdb.events.stop.disconnect(seen.append)
    if gdb.selected_inferior().pid == 0:
        raise TargetLostError("QEMU ended while the guest ran: start it again and use `target remote`")
    return _describe_stop(seen[-1] if seen else None, stopper)


def _describe_stop(event: gdb.StopEvent | None, stopper: Stopper) -> str:
    if isinstance(event, gdb.BreakpointEvent):
        return f"breakpoint {event.breakpoint.number}"
    if isinstance(event, gdb.SignalEvent) and event.stop_signal != "SIGINT":
        return event.stop_signal
    return "as asked for" if stopper.requested else "Ctrl-C"


def _wait_for_stop() -> None:
    """Ctrl-C was noticed by Python and not by GDB's wait: the guest may still run."""
    thread = gdb.selected_thread()
    if thread is not None and thread.is_running():
        gdb.execute("interrupt", to_string=True)
