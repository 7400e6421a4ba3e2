"""Breakpoints on system calls where something else goes wrong: settings, files, symbols, another stub."""

import re
from pathlib import Path

import pytest

from exogdb.launch.deadline import wait_until
from tests.harness.kernel import build_kernel
from tests.harness.other_stub import relay_without_monitor
from tests.harness.session import DEMO_RUNS
from tests.integration.conftest import OpenGuest
from tests.integration.stops import said_by_exogdb, stopped_at


def test_watchpoints_that_are_forbidden_once_they_are_set(guest: OpenGuest) -> None:
    """GDB would not even resume with them; and of two rows at one address only the one that stops is told of."""
    gdb = guest("run=demo").gdb
    assert "(watched table)" in gdb.run("exo-syscall break 101")
    gdb.run("set can-use-hw-watchpoints 0")
    assert stopped_at(gdb.run("continue")) == 101
    assert "`set can-use-hw-watchpoints 0` forbids it" in gdb.run("exo-syscall break 101 --on-return --explain")
    outputs = [gdb.run("continue") for _ in range(4)]
    assert [output.count("System call 101") for output in outputs] == [1] * 4
    assert all(") = " in output for output in outputs if " 2.1, " in output)
    assert {bool(re.search("Breakpoint 2.1, ", output)) for output in outputs} == {False, True}


def test_files_that_cannot_be_written_are_one_sentence_and_tried_again(guest: OpenGuest) -> None:
    one = guest("run=demo", attach=False)
    gdb = one.gdb
    gdb.run("python import tempfile; tempfile.tempdir = '/nowhere'")
    assert "pending" in gdb.run("exo-syscall break 101")
    one.qemu.wait_serial(DEMO_RUNS)
    sentence = r"/nowhere/exogdb-\w+ cannot be written: No such file or directory; TMPDIR names another place"
    reply = gdb.reply(f"target remote {one.qemu.gdb_socket}")
    (said,) = said_by_exogdb(reply.err)
    assert re.fullmatch(f"exo-syscall break: {sentence}", said)
    assert re.fullmatch(sentence, gdb.fails("exo-syscall break 102"))
    assert gdb.run("info breakpoints").count("-probe") == 1
    gdb.run("python tempfile.tempdir = None")
    assert stopped_at(gdb.run("continue")) == 101
    gdb.run("set exo profile /nowhere/kernel.toml")
    shown = gdb.run("bt")
    assert "<system call> (number unavailable: `set exo profile /nowhere/kernel.toml`: No such file" in shown
    assert "program_main" in shown, "and on it goes"


def test_a_call_that_is_turned_away_before_its_handler_is_not_taken_for_the_next_one(guest: OpenGuest) -> None:
    """As a kernel's own policy does: the dispatcher was entered, and the handler never is."""
    gdb = guest("run=demo").gdb
    gdb.run("set language c")
    gdb.run("exo-syscall break all --if '$nr == 101 && $arg3 == 77'")
    dispatcher = gdb.address("syscall_dispatch")
    returned_at = int(gdb.json("exo-syscall abi")["dispatcher"]["return"], 16)
    gdb.run(f"tbreak *{returned_at - 5:#x} if $rdi == 101")  # the stub's CALL
    gdb.run("continue")
    length = gdb.integer("$rcx")  # the third argument
    gdb.run("set $rcx = 77")
    gdb.run(f"tbreak *{dispatcher:#x}")
    gdb.run("continue")
    assert gdb.integer("$pc") == dispatcher
    gdb.run("set $pc = *(unsigned long *)$rsp")
    gdb.run("set $rsp = $rsp + 8")
    gdb.run(f"set $rax = {length}")  # as if it had been sent, so that the program goes on
    gdb.run("set $calls = 0")
    gdb.run(f"break *{dispatcher:#x} if $rdi == 101 && $calls++ == 4")
    gdb.run("continue")
    assert gdb.integer("$pc") == dispatcher, "no other call has 77 there"


# The next planning lasts until Ctrl-C was pressed.
LONG_PLANNING = """python
import time
from pathlib import Path
from exogdb.interrupts import is_interrupt_pending
from exogdb.target.breakpoint import current_plan
def plan(*arguments, _plan=current_plan.read_plan):
    current_plan.read_plan = _plan
    Path("{marker}").touch()
    deadline = time.monotonic() + 20
    while not is_interrupt_pending() and time.monotonic() < deadline:
        pass
    return _plan(*arguments)
current_plan.read_plan = plan
end"""


def test_ctrl_c_while_a_pending_breakpoint_is_planned(guest: OpenGuest, tmp_path: Path) -> None:
    """At the first call, in the middle of GDB's decision about a stop: it waits, and then stops the guest."""
    gdb, marker = guest("run=demo", stopped=True).gdb, tmp_path / "planning"
    assert "pending" in gdb.run("exo-syscall break 101 --if '$arg3 > 100000'"), "no stop but Ctrl-C's"
    gdb.run(LONG_PLANNING.format(marker=marker))
    gdb.resume()
    wait_until(marker.exists, 20, "the plan is being made")
    gdb.interrupt()
    reply = gdb.finish()
    assert "received signal SIGINT" in reply.out
    # GDB complains of a source file of `core`, if it stops there.
    assert not [line for line in reply.err.splitlines() if "No such file or directory" not in line]
    assert "1 breakpoint keep y 0x" in " ".join(gdb.run("info breakpoints").replace("<MULTIPLE>", "0x").split())
    gdb.run("exo-syscall break 102")
    assert stopped_at(gdb.run("continue")) == 102


def test_a_hidden_breakpoint_of_the_same_stop_that_is_gone(guest: OpenGuest) -> None:
    """Those that are done with are deleted at the next stop, which they may be among the reasons for."""
    gdb = guest().gdb
    gdb.run("exo-syscall break ipc_send")
    gdb.run("python from exogdb.target.breakpoint.hidden_breakpoints import _retired")
    gdb.run(f"python _retired.append(gdb.Breakpoint('*{gdb.address('sys_ipc_send')}', internal=True))")
    reply = gdb.reply("continue")
    assert "Exception" not in reply.err
    assert "System call 101 ipc_send(" in reply.out
    assert gdb.run("python print(_retired)").strip() == "[]"


def test_a_file_without_the_chosen_name_leaves_the_breakpoint_waiting(guest: OpenGuest) -> None:
    one = guest("run=demo")
    gdb, kernel = one.gdb, one.kernel.elf
    gdb.run("exo-syscall break ipc_send")
    reply = gdb.reply(f"file {build_kernel('stripped').elf}")
    assert "until a kernel that has it is loaded: no system call is called 'ipc_send'" in reply.err
    assert "Python" not in reply.out + reply.err
    assert "ipc_send" in gdb.run("info breakpoints")
    gdb.run(f"file {kernel}")
    assert stopped_at(gdb.run("continue")) == 101


def test_a_number_whose_name_means_something_else(guest: OpenGuest, tmp_path: Path) -> None:
    """A keyword of the grammar, and the name of another number: a header has both branches of its #ifdef."""
    table = tmp_path / "numbers.h"
    read = "#ifdef __i386__\n#define __NR_read 101\n#else\n#define __NR_read 302\n#endif\n"
    table.write_text(f"#define SYS_ALL 4\n{read}#define SYS_IPC_RECV 102\n")
    gdb = guest("run=demo").gdb
    gdb.run(f"set exo syscalls {table}")
    for row, number in enumerate((4, 302), 1):
        assert f"Breakpoint {row} on system call {number} (" in gdb.run(f"exo-syscall break {number}")
    chosen = {row["number"]: row["breakpoints"] for row in gdb.json("exo-syscall list")["syscalls"]}
    assert chosen == {4: [1], 101: [], 102: [], 302: [2]}
    gdb.run("disable 1")
    assert stopped_at(gdb.run("continue")) == 302
    gdb.run("disable 2")
    gdb.run("enable 1")
    assert stopped_at(gdb.run("continue")) == 4
    gdb.run("delete")
    gdb.run("tbreak -probe syscall:read")  # as the grammar has it: the first of that name, and nothing else
    assert stopped_at(gdb.run("continue")) == 101


REFUSED = """python
refused = []
def execute(command, *arguments, _execute=gdb.execute, **options):
    try:
        return _execute(command, *arguments, **options)
    except gdb.error:
        if gdb.selected_thread() is not None and gdb.selected_thread().is_running():
            refused.append(command)
        raise
gdb.execute = execute
end"""
"""Notes what fails while GDB decides about a stop: then `continue` comes back too early."""


@pytest.mark.parametrize("variant", ["", "debug"])
def test_a_stub_without_a_monitor(guest: OpenGuest, tmp_path: Path, variant: str) -> None:
    """Nothing but the kernel's image is known to be RAM there, LSTAR cannot be read, and a pending breakpoint is
    planned in the middle of `continue`."""
    one = guest("run=demo", variant=variant, attach=False, stopped=True)
    gdb = one.gdb
    gdb.run(REFUSED)
    assert "pending" in gdb.run("exo-syscall break 101 --process 2")
    with relay_without_monitor(one.qemu.gdb_socket, tmp_path) as socket:
        gdb.run(f"target remote {socket}")
        for _ in range(2):
            assert stopped_at(gdb.run("continue")) == 101
        assert gdb.run("python print(refused)").strip() == "[]"
        assert "it is not QEMU's stub" in str(gdb.json("exo-msr --via qmp"))
        gdb.run("disconnect")


TOLD = """
from exogdb.target.analysed import analysed_paths
from exogdb.target.breakpoint.hit import StopRegisters
from exogdb.target.breakpoint.told import ToldCalls
from exogdb.target.cpus import selected_cpu
told, (path,) = ToldCalls(), analysed_paths()
def tell(number):
    told.add(selected_cpu(), StopRegisters(), path, number)
"""


def test_calls_of_two_processes_on_one_cpu_are_kept_apart(guest: OpenGuest) -> None:
    """The first may lose the CPU between the table and its place, and the other make the same call meanwhile."""
    gdb = guest(variant="today").gdb
    gdb.run("exo-syscall break ipc_recv")
    gdb.run("delete")
    gdb.run(f"python exec({TOLD!r}, globals())")
    gdb.run(f"break *{gdb.address('syscall_rust_handler'):#x}")
    stacks = set[int]()
    while len(stacks) < 2:
        gdb.run("continue")
        stacks.add(gdb.integer("$rsp"))
        gdb.run("python tell(102)")
    assert gdb.run("python print(list(told.numbers))") == "[102, 102]\n"
