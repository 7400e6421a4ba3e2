"""`disable N.M` of one location of a breakpoint on system calls holds, whatever exogdb enables."""

import re
from pathlib import Path

import pytest

from tests.harness.gdb import Gdb
from tests.harness.kernel import build_kernel
from tests.integration.conftest import OpenGuest

BURSTS = 30
"""More than the demo sends, or receives, without the other in between."""


def location_at(gdb: Gdb, address: int) -> tuple[str, bool]:
    """The location of row 1 that GDB lists at `address`, and whether it is enabled."""
    found = re.search(rf"^(1\.\d+)\s+([yn])\s+{address:#018x}", gdb.run("info breakpoints"), re.MULTILINE)
    assert found is not None
    return found[1], found[2] == "y"


def number_at_stop(gdb: Gdb) -> int:
    """The next call that row 1 stops at, also where no table names it."""
    return int(gdb.run("continue").split("System call ")[1].split()[0])


@pytest.mark.parametrize("variant", ["", "stripped"])
def test_a_location_that_the_user_disables_stays_disabled(guest: OpenGuest, tmp_path: Path, variant: str) -> None:
    """Without symbols GDB itself forgets that it was, whenever it looks for the locations again."""
    one = guest("run=demo", variant=variant)
    gdb = one.gdb
    gdb.run("set can-use-hw-watchpoints 0")  # no location waits for a read of a table's entry
    places = gdb.json("exo-syscall break 101,102")["places"]
    receive = next(int(place["address"], 16) for place in places if place["number"] == 102)
    location, is_enabled = location_at(gdb, receive)
    assert is_enabled
    other = build_kernel("debug" if variant else "stripped").elf
    gdb.reply(f"add-symbol-file {other} -o 0x1000000")
    gdb.run(f"disable {location}")
    for command in (
        "exo-syscall break 4 --temporary",
        "exo-syscall break 4 --on-return --cpu 0 --ignore 1000000",  # loads a file of its own
        f"remove-symbol-file {other}",
        "disable 1",
        "enable 1",
        f"save breakpoints {tmp_path / 'saved'}",
        "save breakpoints /nowhere/saved",
        f"file {one.kernel.elf}",
        "disconnect",
        f"target remote {one.qemu.gdb_socket}",
        f"add-symbol-file {other} -o 0x1000000",
    ):
        gdb.reply(command)
        assert location_at(gdb, receive) == (location, False), command
    gdb.run("delete 2-3")
    assert [number_at_stop(gdb) for _ in range(BURSTS)] == [101] * BURSTS
    gdb.run(f"enable {location}")
    gdb.run("exo-syscall break 4 --temporary --ignore 1000000")
    assert location_at(gdb, receive) == (location, True)
    assert 102 in (number_at_stop(gdb) for _ in range(BURSTS))


def test_a_location_that_waits_for_a_read_of_its_table_entry(guest: OpenGuest) -> None:
    """GDB says nothing of `disable` where it shows `n` already."""
    gdb = guest("run=demo").gdb
    receive = gdb.address("sys_ipc_recv")
    assert "(watched table)" in gdb.run("exo-syscall break 101,102")
    location, is_enabled = location_at(gdb, receive)
    assert not is_enabled
    gdb.run(f"enable {location}")
    gdb.run(f"disable {location}")
    gdb.run("exo-syscall break 4 --temporary --ignore 1000000")
    assert [number_at_stop(gdb) for _ in range(BURSTS)] == [101] * BURSTS
    gdb.run(f"enable {location}")
    assert 102 in (number_at_stop(gdb) for _ in range(BURSTS))
