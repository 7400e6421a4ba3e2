"""The harness itself: if it cannot drive GDB and QEMU, no other test means anything."""

import pytest

from tests.harness.gdb import Gdb, GdbFailure
from tests.integration.conftest import OpenGuest


def test_each_command_gets_its_own_output() -> None:
    with Gdb() as gdb:
        assert gdb.run("output 1") == "1"
        assert gdb.fails("output nosuch") == 'No symbol table is loaded.  Use the "file" command.'
        assert gdb.run("echo (gdb) not a prompt\\n") == "(gdb) not a prompt\n"


def test_an_unexpected_error_and_an_unexpected_success_fail_the_test() -> None:
    with Gdb() as gdb:
        with pytest.raises(GdbFailure, match="Undefined command"):
            gdb.run("frobnicate")
        with pytest.raises(GdbFailure, match="expected to fail"):
            gdb.fails("output 1")


def test_a_guest_boots_and_keeps_calling(guest: OpenGuest) -> None:
    gdb = guest(smp=2, plugin=False).gdb
    gdb.run("hbreak syscall_entry")
    gdb.run("continue")
    before = gdb.word("SYSCALL_COUNT")
    gdb.run("continue 10")
    assert gdb.word("SYSCALL_COUNT") >= before + 9
    assert gdb.integer("$rip") == gdb.address("syscall_entry")


def test_ctrl_c_stops_a_running_guest_every_time(guest: OpenGuest) -> None:
    gdb = guest(plugin=False).gdb
    for _ in range(5):
        gdb.resume()
        gdb.interrupt()
        assert "SIGINT" in gdb.finish().out


def test_qemu_can_die_under_gdb(guest: OpenGuest) -> None:
    one = guest(plugin=False)
    one.gdb.resume()
    one.qemu.kill()
    assert "Remote connection closed" in one.gdb.finish().err
