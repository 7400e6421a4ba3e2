"""Backtraces across the boundary: at every instruction from the user's SYSCALL to behind SYSRET."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.harness.session import Guest
from tests.integration.conftest import OpenGuest

# Looks at frames as a user's `up` would, and says what the one behind the boundary has.
SNIPPET = """
import gdb, json
def crossing():
    frame, names = gdb.newest_frame(), []
    while frame is not None:
        names.append(frame.name())
        if frame.pc() >> 63 == 0 and frame.pc() >> 47 == 0:
            values = {name: int(frame.read_register(name)) % (1 << 64) for name in ("rip", "rsp", "rbp", "rbx",
                      "r12", "r13", "r14", "r15", "eflags")}
            print(json.dumps({"names": names, "registers": values}))
            return
        frame = frame.older()
    print(json.dumps({"names": names, "registers": {}}))
"""
KEPT = ("rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "eflags")


def find_syscall(guest: Guest, program: str, function: str) -> int:
    """The address of the SYSCALL instruction in a user program's `function`, by objdump."""
    (elf,) = (path for path in guest.kernel.programs if path.stem == program)
    command = ["objdump", "-d", "-C", f"--disassemble={function}", str(elf)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    (address,) = re.findall(r"^\s*([0-9a-f]+):.*\tsyscall\s*$", listing, re.MULTILINE)
    return int(address, 16)


def stop_at_user_syscall(guest: Guest) -> int:
    address = find_syscall(guest, "worker", "exo::calls::getpid")
    guest.gdb.run(f"hbreak *{address:#x}")
    guest.gdb.run("continue")
    guest.gdb.run("delete")
    assert guest.gdb.integer("$rip") == address
    return address


def define_snippet(guest: Guest) -> None:
    lines = SNIPPET.strip().splitlines()
    guest.gdb.run(f"python exec({chr(10).join(lines)!r}, globals())")


def crossing(guest: Guest) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(guest.gdb.run("python crossing()"))
    return answer


@pytest.mark.parametrize("variant", ["", "debug", "stripped", "today"])
def test_the_user_frame_is_right_at_every_instruction(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    address = stop_at_user_syscall(one)
    define_snippet(one)
    registers = crossing(one)["registers"]
    before = {name: registers[name] for name in KEPT}
    steps, entry = 0, 0
    while True:
        one.gdb.reply("stepi")  # complains about sources of the standard library that are not there
        if one.gdb.integer("$cs") & 3:
            break
        steps += 1
        pc = one.gdb.integer("$pc")
        entry = pc if steps == 1 else entry
        found = crossing(one)
        assert found["registers"].get("rip") == address + 2, one.gdb.run("x/i $pc")
        assert {name: found["registers"][name] for name in KEPT} == before, one.gdb.run("x/i $pc")
        if steps % 8 == 0 or 0 <= pc - entry < 0x100:
            assert "<system call" in one.gdb.run("bt")
    assert one.gdb.integer("$rip") == address + 2
    assert steps > 30


def test_a_backtrace_names_the_call_and_reaches_the_program(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    trace = one.gdb.run("bt")
    assert re.search(r"^#\d+ +<system call 101 ipc_send>", trace, re.MULTILINE), trace
    order = [trace.index(name) for name in ("syscall_dispatch", "syscall_entry", "<system call", "program_main")]
    assert order == sorted(order)


def test_user_frames_have_their_variables(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    one.gdb.run("frame function exo::calls::ipc_send")
    assert one.gdb.integer("$rip") < 1 << 47
    assert "syscall" in one.gdb.run("x/i $rip-2")


def test_other_backtraces_are_untouched(guest: OpenGuest) -> None:
    with_plugin, without = guest(stopped=True), guest(stopped=True, plugin=False)
    traces = []
    for one in (with_plugin, without):
        one.gdb.run("hbreak init_syscall")
        one.gdb.run("continue")
        traces.append(one.gdb.run("bt"))
    assert traces[0] == traces[1]
    stop_at_user_syscall(with_plugin)
    assert "<system call" not in with_plugin.gdb.run("bt")
