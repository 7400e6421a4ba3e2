"""Running the guest to one of several places, and leaving nothing behind, whatever ends the run.

A `Waypoint` is a hardware breakpoint (QEMU writes nothing into the guest for it) that users do not see in
`info breakpoints`. When a CPU comes by, its condition decides, with that CPU selected, whether the run ends there;
if not, all CPUs go on. The user's own breakpoints and Ctrl-C end a run as they always do.

Most of a run in a busy guest is such stops. GDB forgets a Ctrl-C that arrives while it handles one, so for the
time of the run a thread waits for the signal instead.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import gdb

from exogdb.errors import ExoError, TargetLostError
from exogdb.interrupts import no_signals
from exogdb.target.cpus import Cpu, selected_cpu
from exogdb.target.run.resume import Stopper
from exogdb.target.run.shutdown import SHUTDOWN, is_shutdown, require_runnable
from exogdb.target.with_setting import with_setting

__all__ = ["Arrival", "Place", "run_to"]


@dataclass(frozen=True)
class Place:
    """Where a run may end: at `address` (virtual), on `cpu` only if that is given, and if `is_wanted` says so.

    `is_wanted` is asked with the CPU that came by selected. It must not resume the guest.
    """

    address: int
    is_wanted: Callable[[Cpu], bool]
    cpu: Cpu | None = None


@dataclass(frozen=True)
class Arrival:
    """How a run ended. `place` is None if something else stopped it; `report` says what."""

    cpu: Cpu
    place: Place | None
    report: str


class _Waypoint(gdb.Breakpoint):
    def __init__(self, place: Place, stopper: Stopper) -> None:
        super().__init__(f"*{place.address:#x}", type=gdb.BP_HARDWARE_BREAKPOINT, internal=True)
        self.silent = True
        self.place = place
        self.stopper = stopper
        self.reached = False
        self.error: ExoError | None = None
        if place.cpu is not None:
            self.thread = place.cpu.thread

    def stop(self) -> bool:
        """GDB asks this when a CPU comes by."""
        try:
            self.reached = self.place.is_wanted(selected_cpu())
        except ExoError as error:
            self.error = error
            return True
        return self.reached or self.stopper.requested


def run_to(places: Sequence[Place]) -> Arrival:
    """Resume the guest until a CPU comes to one of `places`, or something else stops it.

    The guest must be stopped, and is stopped afterwards. The selected CPU is then the one that came by.

    :raise TargetLostError: QEMU ended, or closed the connection.
    """
    stopper = Stopper()
    with _waypoints(places, stopper) as waypoints:
        report = _continue(stopper)
        for waypoint in waypoints:
            if waypoint.error is not None:
                raise waypoint.error
        reached = next((waypoint.place for waypoint in waypoints if waypoint.reached), None)
    return Arrival(selected_cpu(), reached, report)


@contextlib.contextmanager
def _waypoints(places: Sequence[Place], stopper: Stopper) -> Iterator[list[_Waypoint]]:
    made: list[_Waypoint] = []
    try:
        for place in places:
            made.append(_Waypoint(place, stopper))
        yield made
    finally:
        for waypoint in made:
            if waypoint.is_valid():
                waypoint.delete()


@contextlib.contextmanager
def _ctrl_c_stops(stopper: Stopper) -> Iterator[None]:
    """Inside the block Ctrl-C makes `stopper` stop the guest, and nothing else notices it."""
    ended = threading.Event()

    def wait_for_signal() -> None:
        while signal.sigwait({signal.SIGINT}) and not ended.is_set():
            stopper.stop()

    waiting = threading.Thread(target=wait_for_signal, daemon=True)
    with no_signals():
        waiting.start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        ended.set()
        if waiting.ident is not None:
            signal.pthread_kill(waiting.ident, signal.SIGINT)
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _continue(stopper: Stopper) -> str:
    """Resume, wait for the stop, and say in a few words what it was."""
    require_runnable()
    seen: list[gdb.StopEvent] = []
    gdb.events.stop.connect(seen.append)
    try:
        # GDB would show the place of each stop by itself, to a terminal or in the middle of JSON.
        with with_setting("suppress-cli-notifications", True), _ctrl_c_stops(stopper), stopper.running():
            gdb.execute("continue", to_string=True)
    except gdb.error as error:
        if "Remote c" in str(error):
            raise TargetLostError("QEMU closed the connection while the guest ran") from error
        raise
    finally:
        gdb.events.stop.disconnect(seen.append)
    if gdb.selected_inferior().pid == 0:
        raise TargetLostError("QEMU ended while the guest ran: start it again and use `target remote`")
    return "Ctrl-C" if stopper.requested else _describe(seen[-1] if seen else None)


def _describe(event: gdb.StopEvent | None) -> str:
    match event:
        case gdb.BreakpointEvent():
            numbers = ", ".join(
                str(each.number) for each in event.breakpoints if each.is_valid() and each.number > 0
            )
            return f"breakpoint {numbers}"
        case gdb.SignalEvent() if is_shutdown(event):
            return SHUTDOWN
        case gdb.SignalEvent():
            return str(event.stop_signal)
    return "for a reason that GDB does not tell"
