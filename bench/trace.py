"""Tracing system calls: both engines against a pair of GDB's Python breakpoints, and what the guest pays.

The guest is `run=spin`: on every CPU, getpid as fast as it goes. Every rate is counted by the kernel itself, and a
trace that lost a record is no figure but a failure.
"""

import json
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Bench
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import find_trace_points, log_filter
from exogdb.trace.points import TracePoints
from tests.harness.gdb import Gdb
from tests.harness.kernel import build_kernel
from tests.harness.session import Guest, open_guest

__all__ = ["measure"]

SECONDS = 1
ROUNDS = 3
# What a user would write without exogdb: it counts in GDB and reads the same registers.
PREPARE = f"""python
import threading, time
def count():
    return int.from_bytes(gdb.selected_inferior().read_memory(COUNTER, 8), "little")
class Pair(gdb.Breakpoint):
    names = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rcx", "rsp", "cr3")
    def stop(self):
        frame = gdb.newest_frame()
        self.values = [int(frame.read_register(name)) for name in self.names]
        return time.perf_counter() > DEADLINE
def run():
    global DEADLINE
    before, start = count(), time.perf_counter()
    DEADLINE = start + {SECONDS}
    timer = threading.Timer({SECONDS}, lambda: gdb.post_event(lambda: gdb.execute("interrupt", to_string=True)))
    timer.start()
    gdb.execute("continue", to_string=True)
    timer.cancel()
    return (count() - before) / (time.perf_counter() - start)
def pair():
    points = [Pair(f"*{{at:#x}}", internal=True) for at in (ENTRY, RETURN)]
    try:
        return run()
    finally:
        for each in points:
            each.delete()
end"""


def measure(bench: Bench) -> None:
    """Keys `trace.smp1.*` and `trace.smp4.*`, in calls/s, taken in turns in one guest for each."""
    for smp in (1, 4):
        _measure_guest(bench, smp)


def _measure_guest(bench: Bench, smp: int) -> None:
    kernel = build_kernel()
    image = read_image(kernel.elf)
    with (
        tempfile.TemporaryDirectory() as directory,
        open_guest("run=spin", smp, attach=False, qemu=log_filter(image)) as guest,
    ):
        guest.qemu.wait_serial("spin:")
        gdb = guest.gdb
        gdb.reply(f"target remote {guest.qemu.gdb_socket}")
        _prepare(gdb, find_trace_points(image))
        key = f"trace.smp{smp}"
        rate = partial(_print_rate, gdb)
        bench.interleave(
            {
                f"{key}.pair": lambda: rate("pair()"),
                f"{key}.log.bound": lambda: _bound(guest),
                f"{key}.log": lambda: _summary(gdb, "log"),
                f"{key}.log.output": lambda: _output(gdb, Path(directory) / "out"),
                f"{key}.log.terminal": lambda: _terminal(gdb),
                f"{key}.stops": lambda: _summary(gdb, "stops"),
            },
            "calls/s",
            ROUNDS,
        )
        bench.set_aim(f"{key}.log", 50, f"{key}.log.bound")
        bench.set_aim(f"{key}.stops", 1.5)
        traced = {f"{key}.during": lambda: _summary(gdb, "log"), f"{key}.after": lambda: rate("run()")}
        bench.interleave({f"{key}.native": lambda: rate("run()"), **traced}, "calls/s", ROUNDS)


def _prepare(gdb: Gdb, points: TracePoints | None) -> None:
    assert points is not None
    (after,) = points.returns
    gdb.run(PREPARE)
    gdb.run(f"python ENTRY, RETURN, COUNTER = {points.entry}, {after}, {gdb.address('SYSCALL_COUNT')}")


def _print_rate(gdb: Gdb, call: str) -> float:
    return float(gdb.run(f"python print({call})").split()[-1])


def _summary(gdb: Gdb, engine: str) -> float:
    """Everything recorded, paired and counted; nothing printed."""
    found: Any = gdb.json(f"exo-syscall summary --for {SECONDS} --engine {engine}")
    return _rate(found["end"])


def _bound(guest: Guest) -> float:
    """What no reader can exceed: QEMU's log into a FIFO from which `cat` reads, and nobody looks at it."""
    with tempfile.TemporaryDirectory() as directory:
        fifo = Path(directory) / "log"
        os.mkfifo(fifo, 0o600)
        with subprocess.Popen(["cat", fifo], stdout=subprocess.DEVNULL):
            for command in (f'logfile "{fifo}"', "log cpu"):
                guest.gdb.run(f"monitor {command}")
            try:
                return _print_rate(guest.gdb, "run()")
            finally:
                for command in ("log none", "logfile /dev/null"):
                    guest.gdb.run(f"monitor {command}")


def _output(gdb: Gdb, path: Path) -> float:
    """Every call decoded and written to a file as JSON."""
    gdb.run(f"exo-syscall trace --for {SECONDS} --engine log --json --output {path}")
    with path.open() as lines:
        *_, last = lines
    return _rate(json.loads(last)["end"])


def _terminal(gdb: Gdb) -> float:
    """Every call decoded and written to a terminal, which is read as fast as this process can."""
    with _terminal_that_is_read() as path:
        last = gdb.run(f"exo-syscall trace --for {SECONDS} --engine log --output {path}", 60).splitlines()[-1]
    found = re.search(r"([\d,]+) entries and .* in (\S+) s; the kernel counted ([\d,]+)$", last)
    assert found, f"a record was lost: {last}"
    return int(found[1].replace(",", "")) / float(found[2])


@contextmanager
def _terminal_that_is_read() -> Iterator[str]:
    reader, terminal = os.openpty()
    path = os.ttyname(terminal)

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while os.read(reader, 1 << 16):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield path
    finally:
        os.close(terminal)
        thread.join()
        os.close(reader)


def _rate(end: dict[str, Any]) -> float:
    assert end["lost"] == 0, end
    assert not end["problems"], end
    return float(end["entries"] / end["seconds"])
