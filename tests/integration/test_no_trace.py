"""Proof that looking leaves no trace: all guest RAM and every register of every CPU, before and after.

RAM is a file that QEMU shares with the test, registers are what QEMU's own monitor prints for all CPUs, and
without RDMSR even the whole device state must be the same, byte for byte. None of this goes through the plugin.
"""

import json
import re

import pytest

from tests.harness.gdb import Gdb
from tests.harness.witness import differences, same_hardware, watched_guest
from tests.integration.stops import attach_running, stop_at, stop_in_ring_3

# Commands that only look. The others resume the guest, write to it, or set breakpoints.
LOOKING = re.compile(r"exo-(msr( star| lstar)?|gs|gdt|idt|tss)|exo-syscall (abi|frame|list|check)")
ARGUMENTS = {"exo-msr": "--all-cpus", "exo-gs": "--all-cpus"}
MOST_STOPS = 60


def at_cpl_0(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_dispatch")


def before_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")


def after_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")
    gdb.reply("stepi")


def at_cpl_3(gdb: Gdb) -> None:
    stop_in_ring_3(gdb)


def halted(gdb: Gdb) -> None:
    """Stop when some CPU waits in HLT with interrupts on, and select it."""
    for _ in range(MOST_STOPS):
        text = gdb.reply("monitor info registers -a").err
        for cpu, body in re.findall(r"CPU#(\d+)(.*?)(?=CPU#|\Z)", text, re.DOTALL):
            if "HLT=1" in body:
                gdb.reply(f"thread {int(cpu) + 1}")
                return
        if gdb.integer("$_inferior_thread_count") > 1:
            stop_at(gdb, "sys_ipc_send")
        else:  # no breakpoint finds the only CPU halted
            gdb.resume()
            gdb.interrupt()
            gdb.finish()
    pytest.fail("no CPU was halted at any stop")


PLACES = {place.__name__: place for place in (at_cpl_0, before_swapgs, after_swapgs, at_cpl_3, halted)}


def read_only_commands(gdb: Gdb) -> list[str]:
    """Every command of the registry that only looks."""
    gdb.run("python from exogdb.commands.registry import COMMANDS")
    names: list[str] = json.loads(gdb.run("python import json; print(json.dumps(sorted(COMMANDS)))"))
    chosen = [name for name in names if LOOKING.fullmatch(name)]
    assert len(chosen) == 11, chosen
    return ["backtrace", *(f"{name} {ARGUMENTS.get(name, '')}".strip() for name in chosen)]


@pytest.mark.parametrize("smp", [1, 4])
def test_looking_changes_nothing_at_all(smp: int) -> None:
    with watched_guest(smp) as (guest, witness):
        attach_running(guest)
        commands = read_only_commands(guest.gdb)
        for place, go_there in PLACES.items():
            go_there(guest.gdb)
            before = witness.look(device_state=True)
            for command in commands:
                guest.gdb.reply(command)
                after = witness.look(device_state=True)
                assert differences(before, after) == [], f"{command} at {place}"


@pytest.mark.parametrize("smp", [1, 4])
def test_rdmsr_in_the_guest_puts_everything_back(smp: int) -> None:
    with watched_guest(smp) as (guest, witness):
        attach_running(guest)
        for place, go_there in PLACES.items():
            go_there(guest.gdb)
            before = witness.look(device_state=False)
            for command in ("exo-msr --via rdmsr", "exo-msr --via rdmsr --all-cpus", "exo-msr read pat 0x174"):
                reply = guest.gdb.reply(command)
                after = witness.look(device_state=False)
                assert differences(same_hardware(before), same_hardware(after)) == [], f"{command} at {place}"
                assert "rdmsr" in reply.out, f"{command} at {place}: {reply}"
