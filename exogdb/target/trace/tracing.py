"""Setting a trace up: where calls are seen, which engine sees them, and running it."""

import time
from dataclasses import dataclass, replace

from exogdb.abi.numbers import NumberTable
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import MemoryFault, OutputError, TargetLostError, UsageError
from exogdb.interrupts import take_ctrl_c
from exogdb.target.cpus import all_cpus
from exogdb.target.current_process import find_process_layout
from exogdb.target.numbers import read_number_table
from exogdb.target.path import read_entry_path
from exogdb.target.qemu.guest_clock import GuestClock, open_guest_clock
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.qemu.peer import find_log_filter
from exogdb.target.session import Session
from exogdb.target.symbols import find_address
from exogdb.target.trace import execlog, stoplog
from exogdb.target.trace.outlet import Outlet
from exogdb.target.with_setting import with_setting
from exogdb.trace.execlog import LogDamage
from exogdb.trace.outcome import Outcome
from exogdb.trace.pairing import Pairing
from exogdb.trace.points import EXEC_HANDLERS, TracePoints, find_trace_points
from exogdb.trace.sink import Sink
from exogdb.trace.unit import Unit

__all__ = ["CLOCKS", "ENGINES", "Tracing", "prepare_tracing"]

ENGINES = ("auto", "log", "stops")
CLOCKS = ("host", "guest")
_COUNTER = "SYSCALL_COUNT"


@dataclass(frozen=True)
class Tracing:
    """Everything that is known before the guest runs. `engine` is `log` or `stops`; `reason` says why it is
    that."""

    session: Session
    path: EntryPath
    points: TracePoints
    numbers: NumberTable
    engine: str
    reason: str
    guest_clock: GuestClock | None = None

    @property
    def engine_name(self) -> str:
        """The engine in words."""
        return execlog.NAME if self.engine == "log" else stoplog.NAME

    @property
    def clock(self) -> str:
        """What the engine's times mean."""
        if self.guest_clock is not None:
            return self.guest_clock.words
        return execlog.CLOCK if self.engine == "log" else stoplog.CLOCK

    @property
    def unit(self) -> Unit:
        """What the clock counts."""
        counts = self.guest_clock is not None and self.guest_clock.counts_instructions
        return Unit.INSTRUCTIONS if counts else Unit.NANOSECONDS

    def read_clock(self) -> int:
        """Where the clock of the engine is now; the guest must be stopped."""
        if self.guest_clock is not None:
            return self.guest_clock.read()
        return time.monotonic_ns() if self.engine == "log" else 0

    def pairing(self) -> Pairing:
        """A pairing that knows which of this kernel's calls fork, exec and exit."""
        return Pairing(
            registers_kept=bool(self.points.kept),
            fork_numbers=self._numbers_of("fork", "vfork", "clone", "clone3"),
            exit_numbers=self._numbers_of("exit", "exit_group"),
            exec_numbers=self._numbers_of("exec", "execve", "execveat"),
            wait_numbers=self._numbers_of("wait", "wait4", "waitpid"),
            thread_numbers=self._numbers_of("clone", "clone3", "vfork"),
            thread_exit_numbers=self._numbers_of("exit") if self._numbers_of("exit_group") else frozenset(),
        )

    def run(self, sink: Sink, seconds: float | None, outlet: Outlet) -> Outcome:
        """Let the guest run and feed `sink`, which may write to `outlet`.

        The guest is stopped before and after, and unchanged by this. QEMU dying in the middle is an ending, not an
        error: what was read is in `sink`. So is an output that takes no more: `Outcome.unwritten`. Ctrl-C must be
        held (`exogdb.target.run.ctrl_c`); it ends the run.
        """
        outcome = Outcome(cpus=len(all_cpus()))
        start = time.monotonic()
        with with_setting("pagination", False):
            try:
                self._run_engine(sink, seconds, outlet, outcome)
                sink.finish()
            except OutputError as error:
                outcome.unwritten = outcome.ending = str(error)
            finally:
                take_ctrl_c()
        outcome.seconds = time.monotonic() - start
        outcome.entries, outcome.returns = sink.pairing.entries, sink.pairing.returns
        outcome.shown, outcome.ambiguous = sink.shown, sink.pairing.ambiguous
        outcome.doubtful = sink.pairing.repeats.doubtful
        return outcome

    def _run_engine(self, sink: Sink, seconds: float | None, outlet: Outlet, outcome: Outcome) -> None:
        before = self._read_counter()
        try:
            if self.engine == "log":
                outcome.damage = LogDamage()
                memory, damage = self.session.memory, outcome.damage
                outcome.ending = execlog.trace_by_log(self.points, memory, sink, seconds, outlet, damage)
            else:
                process_id = find_process_layout(self.session.cpu)
                kernel = stoplog.KernelFacts(self.points, self.path, process_id)
                outcome.ending = stoplog.trace_by_stops(kernel, self.guest_clock, sink, seconds)
            after = self._read_counter()
            outcome.dispatched = None if before is None or after is None else after - before
        except TargetLostError as error:
            outcome.ending = "QEMU ended"
            outcome.problems.append(f"{error.reason}; all that was read until then is shown")

    def _numbers_of(self, *names: str) -> frozenset[int]:
        entries = (self.numbers.by_name.get(name) for name in names)
        return frozenset(entry.number for entry in entries if entry is not None)

    def _read_counter(self) -> int | None:
        address = find_address(_COUNTER)
        if address is None:
            return None
        try:
            return int.from_bytes(self.session.memory.read(address, 8), "little")
        except MemoryFault:
            return None


def prepare_tracing(session: Session, engine: str = "auto", clock: str = "host") -> Tracing:
    """Find the points from LSTAR and the code there, and choose the engine. Reads only.

    `clock` is one of `CLOCKS`; the guest's can be read only where it stands still, which is at stops.

    :raise UsageError: the engine that was asked for cannot be had.
    :raise UnavailableError: LSTAR cannot be read. :raise AnalysisError: the stub's code is not understood.
    """
    path = read_entry_path(session.cpu)
    filtered = find_log_filter()
    handlers = frozenset(address for address in map(find_address, EXEC_HANDLERS) if address is not None)
    points = replace(find_trace_points(path), handlers=handlers if filtered is None else handlers & filtered)
    numbers = read_number_table([points.entry, *points.returns])
    obstacle = _obstacle_to_log(points, filtered)
    guest_clock = None
    if clock == "guest":
        if engine == "log":
            raise UsageError("QEMU's log holds no clock: the guest's is read at stops, with --engine stops")
        guest_clock, obstacle = open_guest_clock(), "only where it stands still can the guest's clock be read"
    if engine == "log" and obstacle:
        remedy = f"start QEMU with -accel tcg -dfilter {points.dfilter}, as `exogdb run` does"
        raise UsageError(f"the log engine cannot be used: {obstacle}; {remedy}")
    if engine == "stops" or obstacle:
        return Tracing(session, path, points, numbers, "stops", obstacle or "as asked for", guest_clock)
    return Tracing(session, path, points, numbers, "log", "no stops; the guest waits where the reader is slower")


def _obstacle_to_log(points: TracePoints, filtered: frozenset[int] | None) -> str:
    """Why QEMU's log cannot be used, or an empty string."""
    if "enabled" in run_monitor("info kvm"):
        return "this QEMU uses KVM, which leaves no execution log"
    wanted = {points.entry, *points.returns, *points.links}
    if filtered is None:
        return "QEMU was not started with -dfilter for single addresses, or its command line cannot be read"
    if not wanted <= filtered:
        return "QEMU's -dfilter lacks this kernel's entry or return address"
    return ""
