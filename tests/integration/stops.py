"""Bringing a guest to a well-known place, and what is said there."""

import re

from tests.harness.gdb import NO_SOURCE, Gdb
from tests.harness.session import DEMO_RUNS, Guest

__all__ = ["attach_running", "hits", "said_by_exogdb", "step_once", "stop_at", "stop_in_ring_3", "stopped_at"]

SYSRETQ = b"\x48\x0f\x07"
STUB_BYTES = 512
CALL_LINE = re.compile(r"^System call (\d+) \w+\(", re.MULTILINE)
MOST_STOPS, MOST_STEPS = 20, 5


def attach_running(guest: Guest, after: str = DEMO_RUNS) -> None:
    """Attach once the guest has printed `after`, by default that its programs run."""
    guest.qemu.wait_serial(after)
    # GDB complains on standard error where it has no source file.
    guest.gdb.reply(f"target remote {guest.qemu.gdb_socket}")


def stop_at(gdb: Gdb, symbol: str) -> None:
    """Run to the first instruction of `symbol`, on whatever CPU gets there first."""
    gdb.run(f"tbreak *{gdb.address(symbol):#x}")
    gdb.reply("continue")


def step_once(gdb: Gdb) -> None:
    """`stepi` until RIP moves: QEMU 7.2 sometimes reports a step that did not happen."""
    rip = gdb.integer("$rip")
    for _ in range(MOST_STEPS):
        gdb.reply("stepi")
        if gdb.integer("$rip") != rip:
            return
    raise AssertionError(f"no step from {rip:#x} in {MOST_STEPS} tries")


def stop_in_ring_3(gdb: Gdb) -> None:
    """Stop right behind the next SYSRET: the call that it ends is done, so it is sure to come."""
    entry = gdb.address("syscall_entry")
    sysret = entry + gdb.memory(entry, STUB_BYTES).index(SYSRETQ)
    for _ in range(MOST_STOPS):
        gdb.run(f"tbreak *{sysret:#x}")
        gdb.reply("continue")
        gdb.reply("stepi")
        if gdb.integer("$cs") & 3 == 3:
            return
        # Another CPU was at the breakpoint, too, and GDB reported that instead of stepping.
    raise AssertionError("no CPU came to ring 3 by a single step over SYSRET")


def said_by_exogdb(err: str) -> list[str]:
    """The guest may have stopped in a library whose source is not installed, which GDB says there as well."""
    return [line for line in err.splitlines() if not NO_SOURCE.fullmatch(line)]


def stopped_at(output: str) -> int:
    """The number of the one system call that a stop by `exo-syscall break` told of."""
    found = CALL_LINE.findall(output)
    assert len(found) == 1, output
    return int(found[0])


def hits(gdb: Gdb, number: int) -> int:
    """How often GDB counted breakpoint `number` as hit."""
    found = re.search(r"already hit (\d+) time", gdb.run(f"info breakpoints {number}"))
    return int(found[1]) if found else 0
