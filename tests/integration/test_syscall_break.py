"""A breakpoint on a system call stops as often as the kernel itself says that the call was made."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness.gdb import Gdb
from tests.integration.conftest import OpenGuest

VARIANTS = ["", "debug", "today"]
STOP = re.compile(r"^System call (?P<number>\d+) (?P<name>\w+)\(", re.MULTILINE)


def stopped_at(output: str) -> int:
    found = STOP.findall(output)
    assert len(found) == 1, output
    return int(found[0][0])


class Truth:
    """The last call that the kernel wrote down for a CPU, read with GDB's own words."""

    def __init__(self, gdb: Gdb) -> None:
        self._gdb = gdb

    def last_call(self, cpu: int = 0) -> tuple[int, int, int]:
        """(number, process, first argument) of the last call that started on `cpu`."""
        base = self._gdb.address("EXO_TRUTH")
        cpu_size, call_size = (self._gdb.integer(f"*(unsigned long long *){base + at}") for at in (16, 24))
        sequence = self._word(base + 48 + cpu * cpu_size + 15 * 8)
        calls = base + 48 + 8 * cpu_size
        record = calls + sequence % 256 * call_size
        return self._word(record + 32), self._word(record + 24), self._word(record + 40)

    def _word(self, address: int) -> int:
        return int.from_bytes(self._gdb.memory(address, 8), "little")


@contextmanager
def c_language(gdb: Gdb) -> Iterator[None]:
    gdb.run("set language c")
    yield
    gdb.run("set language auto")


@pytest.mark.parametrize("variant", VARIANTS)
def test_stops_at_101_and_at_nothing_else(guest: OpenGuest, variant: str) -> None:
    gdb = guest("run=demo", variant=variant).gdb
    made = gdb.run("exo-syscall break 101")
    assert made.startswith("Breakpoint 1 on system call 101 (ipc_send) at 0x"), made
    for _ in range(5):
        output = gdb.run("continue")
        assert stopped_at(output) == 101
        with c_language(gdb):
            number, process, channel = Truth(gdb).last_call()
        assert number == 101
        assert f"by process {process} on CPU 0" in output
        assert f"channel={channel}," in output
    assert "breakpoint already hit 5 times" in gdb.run("info breakpoints")
