"""The engine that needs no stop: QEMU's execution log, filtered to the entry and the return, through a FIFO.

The log is switched on and off by the monitor while the guest is stopped; in between it runs at full speed but for
what writing the log costs. A thread reads the FIFO, because GDB's main thread waits for the guest meanwhile. A
reader that falls behind makes QEMU wait in `write`, so the guest becomes slower and nothing is lost.

Nothing in the guest changes. Afterwards QEMU's log is off and its log file is /dev/null (it cannot be asked which
one it was before).
"""

import contextlib
import os
import select
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

import gdb

from exogdb.errors import MonitorError, OutputError, TargetLostError
from exogdb.interrupts import no_signals, take_ctrl_c
from exogdb.target.cpus import all_cpus
from exogdb.target.own_files import temporary_directory
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.registers import read_register
from exogdb.target.run.resume import Stopper, run_guest
from exogdb.target.trace.forgotten import log_prefix, switch_log_off
from exogdb.target.trace.outlet import Outlet
from exogdb.trace.event import address_space
from exogdb.trace.execlog import LogDamage, LogParser, choose_log_items, decode_task_registers
from exogdb.trace.points import TracePoints
from exogdb.trace.sink import Sink
from exogdb.x86.memory import ReadableMemory

__all__ = ["CLOCK", "NAME", "trace_by_log"]

NAME = "QEMU's execution log"
CLOCK = "host time when the record was read, the cost of tracing included"

_PIPE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_JOIN_SECONDS = 0.01


def trace_by_log(
    points: TracePoints,
    memory: ReadableMemory,
    sink: Sink,
    seconds: float | None,
    outlet: Outlet,
    damage: LogDamage,
) -> str:
    """Run the guest with the log on until Ctrl-C, `seconds`, a full sink, or any other stop; then switch it off.

    The guest must be stopped, and is stopped afterwards. Ctrl-C must be held (`exogdb.target.run.ctrl_c`). `sink`
    is fed on another thread, and may write to `outlet`. `damage` gets what is wrong with the log; `memory` has the
    kernel's code. Answers why the run ended.

    :raise TargetLostError: QEMU ended; what was read before is in `sink`.
    :raise MonitorError: the monitor refused to switch the log on.
    :raise OutputError: `sink` could not write any more.
    """
    parser = LogParser(points, dict(decode_task_registers(run_monitor("info registers -a"))), damage)
    stopper = Stopper()
    with _fifo() as (path, descriptor), outlet.alone():
        reader = _Reader(descriptor, parser, sink, stopper)
        try:
            tells_cpus = len(parser.cpu_of_task) == len(all_cpus())
            with _log_switched_on(path, choose_log_items(points, memory, tells_cpus=tells_cpus)):
                with no_signals():
                    reader.start()
                ending = run_guest(stopper, seconds)
        finally:
            reader.finish(outlet.pump)
            parser.finish()
            for entry in parser.take_held():
                sink.feed(entry)
            take_ctrl_c()  # not before: while it is pending nobody waits for a reader that takes nothing
    _retract_unbegun(points, sink)
    return ending


def _retract_unbegun(points: TracePoints, sink: Sink) -> None:
    """QEMU logs a block before it runs it: a CPU that stands at the entry has logged what it has not begun.

    It will log it again when it goes on, and the next trace would show the call a second time.
    """
    for cpu in all_cpus():
        if read_register(cpu, "rip") == points.entry:
            sink.retract(cpu.index, address_space(read_register(cpu, "cr3")), read_register(cpu, "rsp"))


class _Reader(threading.Thread):
    """Reads until everybody who could write has closed the FIFO. Never calls into GDB but to ask for a stop."""

    def __init__(self, descriptor: int, parser: LogParser, sink: Sink, stopper: Stopper) -> None:
        super().__init__(name="exogdb-trace", daemon=True)
        self._descriptor = descriptor
        self._parser = parser
        self._sink = sink
        self._stopper = stopper
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Thread body. A failure is kept for the main thread; the FIFO is read on, or the guest would hang."""
        while True:
            data = self._read()
            if data is None:
                return
            if self._failure is not None:
                continue
            try:
                self._decode(data)
            except Exception as error:  # noqa: BLE001 - raised again by finish(), on the main thread
                self._failure = error
                self._stopper.stop("the trace could not be written" if isinstance(error, OutputError) else "error")

    def finish(self, pump: Callable[[], None]) -> None:
        """Wait until all that QEMU has written is read and passed on. Call when the log is off or QEMU is gone."""
        self._stopped.set()
        while self.is_alive():
            pump()
            self.join(_JOIN_SECONDS)
        pump()
        if self._failure is not None:
            raise self._failure

    def _decode(self, data: bytes) -> None:
        for event in self._parser.feed(data, time.monotonic_ns()):
            self._sink.feed(event)
        self._sink.flush()
        if self._sink.is_full:
            self._stopper.stop()

    def _read(self) -> bytes | None:
        """The next piece, or None at the end."""
        while True:
            ready, _, _ = select.select([self._descriptor], [], [], 0.05)
            if not ready:
                if self._stopped.is_set():
                    return None
                continue
            try:
                data = os.read(self._descriptor, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            if data:
                return data
            if self._stopped.is_set():
                return None
            # Nobody has opened the other end yet, or QEMU has died: select() returns at once in both cases.
            self._stopped.wait(0.01)


@contextmanager
def _fifo() -> Iterator[tuple[Path, int]]:
    """A FIFO that only this user can open, in a directory of its own, and its reading end."""
    with temporary_directory(log_prefix()) as directory:
        path = directory / "log"
        os.mkfifo(path, 0o600)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # beyond the user's limit: smaller, and as right
                fcntl(descriptor, F_SETPIPE_SZ, _PIPE_BYTES)
            yield path, descriptor
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)


@contextmanager
def _log_switched_on(path: Path, items: str) -> Iterator[None]:
    """QEMU logs `items` into `path` inside the block.

    The name is removed as soon as QEMU has opened the FIFO: whatever happens to GDB, no file is left behind.
    """
    try:
        _expect_silence(f'logfile "{path}"')  # TMPDIR may have blanks
        _expect_silence(f"log {items}")
        _remove(path)
        yield
    finally:
        _switch_off()


def _switch_off() -> None:
    """The guest is stopped, or QEMU is gone: then there is nothing to switch off."""
    if gdb.selected_inferior().pid == 0:
        return
    with contextlib.suppress(TargetLostError):
        switch_log_off()


def _expect_silence(command: str) -> None:
    answer = run_monitor(command).strip()
    if answer:
        raise MonitorError(f"QEMU's monitor answers `{command}` with: {answer}")
