"""What breakpoints on system calls cost the calls that are not wanted.

`one_elsewhere` and `fifteen_elsewhere` are plain breakpoints at addresses where there is no code: what QEMU takes
for them, it takes for any.

The guest's program makes one call as fast as it goes, and number 101 once every 65,536 calls. The kernel counts
its calls itself (`SYSCALL_COUNT`); the rate is that count over the time that the guest ran. getpid is the shortest
call there is; `read` stands for those that do something, and shares a page with other handlers.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.figures import Bench
from tests.harness.gdb import Gdb
from tests.harness.session import open_guest

__all__ = ["measure"]

SECONDS = 0.5
ROUNDS = 3
# A Ctrl-C gets lost in a GDB that decides about one stop after the other: these ways end by themselves.
SLOW_CALLS = 200
NEVER = "--if '$nr == 12345'"
NOWHERE = 0xFFFF_FFFF_F000_0000  # not mapped
LEAST_RATE, LEAST_GAIN = 0.9, 100
BOUNDS = {"never": "one_elsewhere", "rare": "one_elsewhere", "fifteen": "fifteen_elsewhere"}
BUILDS = (("release", ""), ("debug", "debug"))
CALLS = {"getpid": 4, "read": 302}
GUESTS = tuple(itertools.product(BUILDS, (1, 2), CALLS))

PYTHON_STOP = f"""python
class Python101(gdb.Breakpoint):
    calls = 0
    def stop(self):
        Python101.calls += 1
        return int(gdb.newest_frame().read_register("rdi")) == 999 or Python101.calls > {SLOW_CALLS}
Python101("*ADDRESS")
end"""

# Key to the commands that set it up. The first is what the others are compared with.
FAST: dict[str, tuple[str, ...]] = {
    "none": (),
    "one_elsewhere": (f"hbreak *{NOWHERE:#x}",),
    "fifteen_elsewhere": tuple(f"hbreak *{NOWHERE + 0x1000 * page:#x}" for page in range(15)),
    "never": (f"exo-syscall break munmap {NEVER}",),
    "rare": (f"exo-syscall break 101 {NEVER}",),
    "rare_on_return": (f"exo-syscall break 101 --on-return {NEVER}",),
    "fifteen": (f"exo-syscall break all,!CALL,!unknown {NEVER}",),
}
SLOW = {
    "all": (f"exo-syscall break all --ignore {SLOW_CALLS}",),
    "gdb_condition": ("set $calls = 0", f"break *ADDRESS if $rdi == 999 || $calls++ > {SLOW_CALLS}"),
    "gdb_python_stop": (PYTHON_STOP,),
}


def measure(bench: Bench) -> None:
    """Keys `break.BUILD.smpN.CALL.WAY`, in system calls/s, taken in turns in one guest each."""
    for (build, variant), cpus, call in GUESTS:
        with open_guest(f"run=spin call={CALLS[call]}", variant=variant, smp=cpus, attach=False) as guest:
            guest.qemu.wait_serial("spin:")
            gdb = guest.gdb
            gdb.run(f"target remote {guest.qemu.gdb_socket}")
            gdb.run("set language c")
            words = {"ADDRESS": f"{gdb.address('syscall_dispatch'):#x}", "CALL": call}
            prefix = f"break.{build}.smp{cpus}.{call}"
            ways: dict[str, Callable[[], float]] = {
                f"{prefix}.{way}": partial(rate, gdb, _fill(commands, words))
                for rate, group in ((_rate, FAST), (_slow_rate, SLOW))
                for way, commands in group.items()
            }
            bench.interleave(ways, "calls/s", ROUNDS)
            _set_aims(bench, prefix)


def _set_aims(bench: Bench, prefix: str) -> None:
    """Each plan against no breakpoint at all, and round by round against GDB's own condition: keys `.WAY.gain`."""
    for way, bound in BOUNDS.items():
        key = f"{prefix}.{way}"
        bench.set_aim(key, LEAST_RATE, f"{prefix}.{bound}")
        others = bench.figures[f"{prefix}.gdb_condition"].samples
        for rate, other in zip(bench.figures[key].samples, others, strict=True):
            bench.record(f"{key}.gain", rate / other, "times")
        bench.set_aim(f"{key}.gain", LEAST_GAIN)


def _fill(commands: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    for word, text in words.items():
        commands = tuple(command.replace(word, text) for command in commands)
    return commands


def _rate(gdb: Gdb, commands: tuple[str, ...]) -> float:
    for command in commands:
        gdb.run(command)
    # The first run translates the code anew.
    _run(gdb, 0.1)
    before = gdb.word("SYSCALL_COUNT")
    seconds = _run(gdb, SECONDS)
    rate = (gdb.word("SYSCALL_COUNT") - before) / seconds
    gdb.run("delete")
    return rate


def _slow_rate(gdb: Gdb, commands: tuple[str, ...]) -> float:
    for command in commands:
        gdb.run(command)
    before, start = gdb.word("SYSCALL_COUNT"), time.perf_counter()
    gdb.run("continue", 60)
    rate = (gdb.word("SYSCALL_COUNT") - before) / (time.perf_counter() - start)
    gdb.run("delete")
    return rate


def _run(gdb: Gdb, seconds: float) -> float:
    gdb.resume()
    start = time.perf_counter()
    time.sleep(seconds)
    # Until it has stopped, not until it was told to: a Ctrl-C may take a second one.
    with _pressing_ctrl_c(gdb):
        gdb.finish()
        return time.perf_counter() - start


@contextmanager
def _pressing_ctrl_c(gdb: Gdb) -> Iterator[None]:
    """Again after a while: one that arrives while GDB is deciding about a stop may get lost."""
    finished = threading.Event()

    def press() -> None:
        gdb.interrupt()
        while not finished.wait(5.0):
            gdb.interrupt()

    presser = threading.Thread(target=press, daemon=True)
    presser.start()
    try:
        yield
    finally:
        finished.set()
        presser.join()
