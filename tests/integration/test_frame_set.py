"""`exo-syscall frame set`: the program finds what was set, and what cannot work is refused."""

import pytest

from tests.harness.kernel import ROOT
from tests.harness.session import Guest
from tests.harness.terminal import Terminal
from tests.integration.conftest import OpenGuest
from tests.integration.stops import step_once
from tests.integration.test_unwind import stop_at_user_syscall


def run_to(guest: Guest, address: int) -> None:
    guest.gdb.run("delete")
    guest.gdb.run(f"hbreak *{address:#x}")
    guest.gdb.run("continue")
    guest.gdb.run("delete")
    assert guest.gdb.integer("$pc") == address


def dispatcher(guest: Guest) -> dict[str, str]:
    found: dict[str, str] = guest.gdb.json("exo-syscall abi")["dispatcher"]
    return found


@pytest.mark.parametrize("variant", ["", "today"])
def test_the_program_continues_where_and_with_what_was_set(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    address = stop_at_user_syscall(one)
    rsp, rflags = one.gdb.integer("$rsp"), one.gdb.integer("$eflags")
    run_to(one, one.gdb.address("sys_getpid"))
    one.gdb.run(f"exo-syscall frame set rip {address:#x}")
    one.gdb.run(f"exo-syscall frame set rsp {rsp - 0x40:#x}")
    answer = one.gdb.json(f"exo-syscall frame set rflags {rflags ^ 1:#x}")
    assert int(answer["saved"]["rip"], 16) == address
    run_to(one, address)
    assert one.gdb.integer("$rsp") == rsp - 0x40
    assert one.gdb.integer("$eflags") & 1 == (rflags & 1) ^ 1


@pytest.mark.parametrize("variant", ["", "today"])
def test_the_result_can_be_set_once_the_dispatcher_has_returned(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    address = stop_at_user_syscall(one)
    run_to(one, one.gdb.address("sys_getpid"))
    where = dispatcher(one)
    assert f"tbreak *{where['return']}" in one.gdb.fails("exo-syscall frame set ret 7")
    run_to(one, int(where["return"], 16))
    one.gdb.run("exo-syscall frame set ret 0x1234")
    run_to(one, address + 2)
    assert one.gdb.integer("$rax") == 0x1234


@pytest.mark.parametrize(("variant", "steps"), [("", 0), ("", 12), ("", 18), ("today", 0), ("today", 20)])
def test_an_argument_set_in_the_stub_reaches_the_dispatcher(guest: OpenGuest, variant: str, steps: int) -> None:
    one = guest(variant=variant)
    stop_at_user_syscall(one)
    step_once(one.gdb)
    if steps:
        one.gdb.run(f"stepi {steps}")
    for number in range(1, 7):
        one.gdb.run(f"exo-syscall frame set arg{number} {0x70 + number:#x}")
    run_to(one, int(dispatcher(one)["address"], 16))
    answer = one.gdb.json("exo-syscall frame")
    assert [int(value, 16) for value in answer["args"]] == [0x71, 0x72, 0x73, 0x74, 0x75, 0x76]


def test_what_sysret_would_fault_on_is_refused(guest: OpenGuest) -> None:
    one = guest()
    stop_at_user_syscall(one)
    run_to(one, one.gdb.address("sys_getpid"))
    before = one.gdb.json("exo-syscall frame")
    assert "not canonical" in one.gdb.fails("exo-syscall frame set rip 0x800000000000")
    assert "would never see RF VM" in one.gdb.fails("exo-syscall frame set rflags 0x30202")
    assert "would never see 0x8" in one.gdb.fails("exo-syscall frame set rflags 0x20a")
    assert "the dispatcher may have taken it already" in one.gdb.fails("exo-syscall frame set arg1 1")
    assert "cannot be set" in one.gdb.fails("exo-syscall frame set rbx 1")
    assert one.gdb.json("exo-syscall frame") == before


def test_a_stale_frame_is_not_written(guest: OpenGuest) -> None:
    one = guest()
    stop_at_user_syscall(one)
    assert "no system call is in progress" in one.gdb.fails("exo-syscall frame set rip 0x1000")


def test_what_was_set_can_be_taken_back(guest: OpenGuest) -> None:
    one = guest()
    stop_at_user_syscall(one)
    run_to(one, one.gdb.address("sys_getpid"))
    before = one.gdb.json("exo-syscall frame")
    for name, value in (("rip", "0x10001000"), ("rsp", "0x7000"), ("rflags", "0x203")):
        undo = one.gdb.json(f"exo-syscall frame set {name} {value}")["undo"]
        assert undo == f"exo-syscall frame set {name} {before['saved'][name]}"
        assert int(one.gdb.json("exo-syscall frame")["saved"][name], 16) == int(value, 16)
        assert f"`exo-syscall frame set {name} {value}` takes it back" in one.gdb.run(undo)
    assert one.gdb.json("exo-syscall frame") == before


def test_it_asks_with_the_old_value_and_a_warning(guest: OpenGuest) -> None:
    one = guest(attach=False)
    one.qemu.wait_serial("demo: pid")
    handler = one.gdb.address("sys_getpid")
    script = ["-iex", "set pagination off", "-ex", f"source {ROOT / 'gdbinit.py'}", str(one.kernel.elf)]
    attach = ["-ex", f"target remote {one.qemu.gdb_socket}", "-ex", f"tbreak *{handler:#x}"]
    with Terminal(["gdb", "-nx", "-q", *script, *attach, "-ex", "echo ready"], ROOT) as gdb:
        gdb.wait_for("ready(gdb) ")
        gdb.type("continue")
        gdb.wait_for("(gdb) ")
        gdb.type("exo-syscall frame set rflags 2")
        question = gdb.wait_for("(y or n)")
        assert "(now 0x2" in question
        assert "with IF clear no interrupt will reach the program" in question
        gdb.type("n")
        gdb.wait_for("rflags was not set")
        gdb.type("set confirm off")  # GDB would ask before it ends, too
        gdb.wait_for("(gdb) ")
